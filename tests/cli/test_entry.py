"""Commands on a machine without the dependencies, or with a Python that is too old."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pixeltune
from pixeltune.cli import entry
from pixeltune.cli.entry import run_checked

ROOT = Path(pixeltune.__file__).parents[1]
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "tomli-w": "tomli_w"}


def bare(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python without site-packages, as on a machine where nothing is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-S", *words], capture_output=True, text=True, env=environment, cwd=folder, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "program", "again"),
    [
        (("launch.py", "--list"), "launch.py", "uv run --no-dev launch.py --list"),
        (("launch.py", "--search", "digits_quick"), "launch.py", "uv run --no-dev launch.py --search digits_quick"),
        (("launch.py", "--set", "a=[1, 2]"), "launch.py", "uv run --no-dev launch.py --set 'a=[1, 2]'"),
        (("-m", "pixeltune"), "pixeltune", "uv run --no-dev pixeltune"),
        (("-m", "pixeltune", "train", "--help"), "pixeltune", "uv run --no-dev pixeltune train --help"),
    ],
)
def test_without_the_dependencies_a_command_names_the_two_that_install_them(
    words: tuple[str, ...], program: str, again: str
) -> None:
    done = bare(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'{program}: pydantic must be installed, but it is not; run "python3 -m pip install uv" and "{again}"\n'
    )


def test_from_another_folder_the_command_names_the_checkout(tmp_path: Path) -> None:
    done = bare(str(ROOT / "launch.py"), "--list", folder=tmp_path)
    assert done.returncode == 2
    found = re.search(r'"uv run --no-dev --project (\S+) (\S+) --list"', done.stderr)
    assert found
    assert Path(found[1]) == ROOT
    assert (tmp_path / found[2]).resolve() == ROOT / "launch.py"


def missing(name: str) -> int:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("name", ["ray", "torch.nn", "sklearn.datasets"])
def test_a_dependency_that_is_missed_later_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_checked("launch.py", lambda: missing(name)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"launch.py: {name.partition('.')[0]} must be installed, but it is not; run ")
    assert said.count("\n") == 1


def test_a_dependency_of_a_dependency_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half an installation: a package is there, and one that it imports is not."""
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "__init__.py").write_text("import missing_part.deep", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sysconfig.get_path", lambda _kind: str(tmp_path))

    assert run_checked("launch.py", lambda: len(importlib.import_module("half").__name__)) == 2
    assert capsys.readouterr().err.startswith("launch.py: missing_part must be installed, but it is not; run ")


@pytest.mark.parametrize(("name", "distribution"), [("ray", "ray"), ("sklearn", "scikit-learn"), ("yaml", "pyyaml")])
def test_outside_of_a_checkout_pip_installs_what_is_missing(
    name: str, distribution: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pixeltune is not on the package index: its name there would be somebody else's."""
    monkeypatch.setattr(entry, "checkout_folder", lambda: None)
    assert run_checked("pixeltune", lambda: missing(name)) == 2
    line = f'pixeltune: {name} must be installed, but it is not; run "python3 -m pip install {distribution}", then the '
    assert capsys.readouterr().err == f"{line}same command\n"


@pytest.mark.parametrize("name", ["pixeltune.no_such", "my_layers"])
def test_a_module_that_is_no_dependency_is_not_taken_for_one(name: str) -> None:
    """A fault of pixeltune's, or a file of the user's: installing would not help."""
    with pytest.raises(ModuleNotFoundError):
        run_checked("launch.py", lambda: missing(name))


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    assert run_checked("launch.py", lambda: 0) == 2
    said = capsys.readouterr().err
    assert said.startswith("launch.py: Python must be 3.11 or newer, but it is 3.8.18; run ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "launch.py",
        *(
            f"pixeltune/{name}.py"
            for name in ("__init__", "__main__", "errors", "lazy", "cli/__init__", "cli/entry", "cli/output")
        ),
    ],
)
def test_an_old_python_parses_what_runs_before_the_check(name: str) -> None:
    ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_the_dependencies_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[\[><=]", requirement)[0] for requirement in project["dependencies"]]
    assert sorted(IMPORTED_AS.get(name, name) for name in names) == sorted(entry.DEPENDENCIES)
    assert project["requires-python"].startswith(f">={'.'.join(map(str, entry.OLDEST_PYTHON))},")
