"""The commands with a family and a likelihood of a user's own, with the module and without it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

import pixeltune as pt
from pixeltune.errors import ConfigError
from pixeltune.results.store import SearchStore
from pixeltune.training.weights import CodeWarning, load_model
from tests.support.commands import done, refused, write_tiny
from tests.support.own_code import FAMILY, LIKELIHOOD, SHALLOW, WARM, forget, write_modules

MARK = "raise RuntimeError('imported')"
SETTINGS = ("--set", f"model.family={SHALLOW}", "--set", "model.wings=3", "--set", "model.layers=1")
SEARCH = f"""
from optuna.distributions import CategoricalDistribution, IntDistribution
from pixeltune import Budget, SearchSpace, TrialConfig

search = SearchSpace(
    base=TrialConfig.build(
        {{
            "data": {{"name": "digits", "num_valid": 100}},
            "model": {{"family": "{SHALLOW}"}},
            "likelihood": {{"name": "categorical"}},
            "train": {{"images": 200, "batch_size": 50, "report_every": 100}},
        }}
    ),
    vary={{
        "model.family": CategoricalDistribution(("gated", "{SHALLOW}")),
        "model.layers": IntDistribution(1, 2),
        "model.wings": IntDistribution(0, 3),
    }},
    budget=Budget(trials=2),
)
"""


@pytest.fixture
def storage(code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Results of a training of a family and a likelihood of one's own, and the working directory next to them."""
    monkeypatch.chdir(tmp_path)
    write_tiny()
    out = done("train", "--config", "tiny.toml", *SETTINGS, "--set", f"likelihood.name={WARM}", "--storage", "r")
    assert "Best " in out
    return "r"


def without_modules(folder: Path) -> None:
    """Leave modules that say where they are imported."""
    write_modules(folder, own_shallow=MARK, own_warm=MARK)


def test_a_training_is_evaluated_sampled_and_completed(storage: str) -> None:
    (row,) = SearchStore(storage, "tiny").trials()
    assert (row["status"], row["model.family"], row["model.wings"]) == ("finished", SHALLOW, 3)
    assert f"{row['valid_bits_per_dim']:.5f} bits/dim" in done("evaluate", "tiny", "--storage", storage)
    done("sample", "tiny", "--storage", storage, "--out", "samples.png")
    done("complete", "tiny", "--storage", storage, "--out", "completed.png")
    assert Path("samples.png").stat().st_size > 0


@pytest.mark.needs("constriction")
def test_its_bits_are_verified(storage: str) -> None:
    (row,) = SearchStore(storage, "tiny").trials()
    assert row["bits_verified"] is True
    done("verify-bits", "tiny", "--storage", storage, "--images", "100")


def test_readers_do_not_import_what_a_row_names(storage: str, code_folder: Path) -> None:
    without_modules(code_folder)
    shown = done("show", "tiny", "--storage", storage)
    assert f"model.family = {SHALLOW}" in shown
    assert "model.wings = 3" in shown
    assert "tiny" in done("status", "tiny", "--storage", storage)
    done("compare", "tiny", "--storage", storage)
    toml = done("show", "tiny", "--toml", "--storage", storage)
    assert "wings = 3" in toml
    out = done("export", "tiny", "--storage", storage, "--out", "shared")
    assert f"It needs {SHALLOW} and {WARM}" in out
    assert f"`{SHALLOW} and {WARM}`, fingerprint" in Path("shared/README.md").read_text()
    assert Path("shared/config.toml").read_text() == toml
    frame = pt.read_results(storage)
    assert frame["model.wings"].tolist() == [3]
    assert not [name for name in sys.modules if name.startswith("own_")]


@pytest.mark.needs("plotly", "jinja2")
def test_a_report_does_not_import_what_a_row_names(storage: str, code_folder: Path) -> None:
    without_modules(code_folder)
    done("report", "tiny", "--storage", storage, "--out", "report.html")
    assert SHALLOW in Path("report.html").read_text()
    assert not [name for name in sys.modules if name.startswith("own_")]


def test_weights_load_where_the_module_is_and_name_it_where_it_is_not(storage: str, code_folder: Path) -> None:
    done("export", "tiny", "--storage", storage, "--out", "shared")
    weights = "shared/model.safetensors"
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(weights)
    assert model.config.model.family == SHALLOW
    write_modules(code_folder, own_shallow=FAMILY.replace("slope: float = 0.5", "slope: float = 0.75"))
    with pytest.warns(CodeWarning, match="were trained with other code of own_shallow:ShallowConfig"):
        load_model(weights)
    (code_folder / "own_shallow.py").unlink()
    forget()
    with pytest.raises(ConfigError, match="'own_shallow:ShallowConfig': there is no module own_shallow; install it"):
        load_model(weights)
    said = refused("sample", weights, "--out", "samples.png")
    assert "'own_shallow:ShallowConfig': there is no module own_shallow" in said
    assert "model.safetensors" in said


def test_changed_code_is_noticed_where_training_would_go_on(storage: str, code_folder: Path) -> None:
    train = ("train", "--config", "tiny.toml", *SETTINGS, "--set", f"likelihood.name={WARM}", "--storage", storage)
    forget()
    assert "Best " in done(*train)
    write_modules(code_folder, own_warm=LIKELIHOOD.replace("default=2.0", "default=3.0"))
    words = f"{SHALLOW} and {WARM} must be the code that tiny/00000 was trained with"
    assert words in refused(*train, "--set", "likelihood.temperature=2.0")
    forget()
    assert words in refused("rerun", "tiny", "--storage", storage)
    write_modules(code_folder)
    assert "Best " in done("rerun", "tiny", "--storage", storage)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.family=own_shallow:Other", "own_shallow has no Other; check the name"),
        ("model.family=nowhere_at_all:X", "there is no module nowhere_at_all"),
        ("likelihood.name=own_shallow:ShallowConfig", "it is no subclass of"),
    ],
)
def test_a_training_of_a_wrong_class_is_refused(
    code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny()
    assert words in refused("train", "--config", "tiny.toml", "--storage", "r", "--set", setting)
    assert not Path("r").exists()


def test_the_keys_of_a_family_of_ones_own_are_shown(code_folder: Path) -> None:
    shown = done("config", "--family", SHALLOW, "--likelihood", WARM)
    assert "how many wings it has" in shown
    assert "of the softmax" in shown


def test_a_dry_run_of_a_search_finds_modules_next_to_its_file(
    code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is neither the working directory nor on the path."""
    sys.path.remove(str(code_folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (code_folder / "mine.py").write_text(SEARCH)
    shown = done("--search", str(code_folder / "mine.py"), "--dry-run")
    assert "all of them can be built" in shown
    assert "model.wings" in shown
    write_modules(code_folder, own_shallow=FAMILY.replace("def network_class", "def other_class"))
    assert "it does not define network_class" in refused("--search", str(code_folder / "mine.py"), "--dry-run")
    write_modules(code_folder, own_shallow=FAMILY.replace("return Shallow", "return 3"))
    said = refused("--search", str(code_folder / "mine.py"), "--dry-run")
    assert f"network_class of {SHALLOW} must return a subclass of torch.nn.Module, but returned 3" in said
