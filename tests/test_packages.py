"""The command that installs what is missing, from where pixeltune itself came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pixeltune import packages
from pixeltune.packages import install_command


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout at `tmp_path`, where the command is given, with an environment elsewhere that has pip."""
    monkeypatch.setattr(packages, "checkout_folder", lambda: tmp_path)
    monkeypatch.setattr(packages, "has_package", lambda _name: True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkout_installs_its_own_extras(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command(["plotly", "jinja2"]) == "pip install -e '.[report]'"
    assert install_command(["plotly", "boto3", "scipy"]) == "pip install -e '.[report,aws]' scipy"
    assert install_command(["sklearn", "ray"]) == "pip install scikit-learn 'ray[default,train,tune]'"
    (checkout / "elsewhere").mkdir()
    monkeypatch.chdir(checkout / "elsewhere")
    assert install_command(["plotly"]) == f"pip install -e '{checkout}[report]'"
    monkeypatch.setattr(packages, "has_package", lambda name: name != "pip")
    assert install_command(["rich"]) == "uv pip install rich"


def test_the_environment_of_uv_keeps_what_it_has(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    assert install_command(["plotly", "boto3"]) == "uv sync --inexact --extra report --extra aws"
    assert install_command(["rich"]) == "uv sync --inexact"
    (checkout / "elsewhere").mkdir()
    monkeypatch.chdir(checkout / "elsewhere")
    assert install_command(["plotly"]) == f"uv sync --inexact --project {checkout} --extra report"


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"url": "file:///w/pixeltune.whl", "archive_info": {}}, "'pixeltune[codec] @ file:///w/pixeltune.whl'"),
        ({"url": "https://e.org/p", "vcs_info": {"vcs": "git"}}, "'pixeltune[codec] @ git+https://e.org/p'"),
        (None, "'pixeltune[codec]'"),
    ],
)
def test_an_installed_package_comes_from_where_it_came(
    monkeypatch: pytest.MonkeyPatch, record: dict[str, object] | None, wanted: str
) -> None:
    text = None if record is None else json.dumps(record)
    monkeypatch.setattr(packages, "checkout_folder", lambda: None)
    monkeypatch.setattr(packages, "has_package", lambda _name: True)
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: SimpleNamespace(read_text=lambda _file: text))
    assert install_command(["constriction"]) == f"pip install {wanted}"
