"""Exceptions in a user's own code: a verb prints one line with the place, `-v` the traceback; a row keeps both."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixeltune.errors import ConfigError
from pixeltune.own_code import import_object, note_place, place_of, running, split_place
from pixeltune.results.store import SearchStore
from tests.support.commands import command, done, refused, write_tiny
from tests.support.own_code import FAMILY, LIKELIHOOD, SHALLOW, WARM, forget, write_modules

SETTINGS = ("--set", f"model.family={SHALLOW}", "--set", f"likelihood.name={WARM}", "--set", "model.layers=1")
TRAIN = ("train", "tiny.toml", *SETTINGS, "--storage", "r")
BOOM = 'raise KeyError("a\\nb")'
IMAGES = """
import numpy as np
from pixeltune.data import ImageSet, RawData

def images(config):
    return RawData(train=ImageSet(np.zeros((4, 1, 8, 8), np.uint8)[len({})["x"]]))
"""


def line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def raising(text: str, start: str) -> tuple[str, int]:
    """A module in which the function with this first line raises, and the line that does."""
    assert text.count(start) == 1
    changed = text.replace(start, f"{start}\n        {BOOM}")
    return changed, line_of(changed, BOOM)


@pytest.fixture(autouse=True)
def here(code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny()
    return code_folder


FORWARD = "def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:"
INIT = "def __init__(self, config, *, in_channels, num_params, condition_features=0):"
LOG_PROB = "def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:"


@pytest.mark.parametrize(
    ("module", "text", "start", "function"),
    [
        ("own_shallow", FAMILY, INIT, "__init__"),
        ("own_shallow", FAMILY, FORWARD, "forward"),
        ("own_shallow", FAMILY, "def network_class(self) -> type[nn.Module]:", "network_class"),
        ("own_warm", LIKELIHOOD, LOG_PROB, "log_prob"),
        ("own_warm", LIKELIHOOD, "def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:", "table"),
        ("own_warm", LIKELIHOOD, "def likelihood_class(self) -> type[Warm]:", "likelihood_class"),
    ],
)
def test_a_training_names_the_line(here: Path, module: str, text: str, start: str, function: str) -> None:
    changed, line = raising(text, start)
    write_modules(here, **{module: changed})
    said = command(*TRAIN)
    assert said.code == 2
    assert "Traceback" not in said.out + said.err
    assert said.err.count("\n") <= 1
    (last,) = (said.err or said.out.splitlines()[-1]).splitlines()
    assert f"{module}.py:{line} in {function}" in last
    assert "KeyError: 'a\\nb'" in last
    shown = command(*TRAIN, "-v")
    assert shown.code == 2
    assert "Traceback (most recent call last)" in shown.err
    assert f'{module}.py", line {line}, in {function}' in shown.err
    assert last in shown.out + shown.err
    assert SearchStore("r", "tiny").trials()[0]["traceback"]


def test_a_row_of_a_training_keeps_the_place_and_the_traceback(here: Path) -> None:
    changed, line = raising(FAMILY, FORWARD)
    write_modules(here, own_shallow=changed)
    refused(*TRAIN)
    (row,) = SearchStore("r", "tiny").trials()
    assert (row["status"], row["reason"]) == ("failed", rf"own_shallow.py:{line} in forward: KeyError: 'a\nb'")
    assert "Traceback" in row["traceback"]
    assert "own_shallow.py" in row["traceback"]
    assert "training" in row["traceback"]


def test_an_exception_that_pixeltune_raises_in_a_call_of_the_users_is_named(here: Path) -> None:
    changed = FAMILY.replace("self.body(x_BCHW, s)", "self.body(x_BCHW[0, 0, 0], s)")
    write_modules(here, own_shallow=changed)
    line = line_of(changed, "x_BCHW[0, 0, 0]")
    assert f"own_shallow.py:{line} in forward raises " in refused(*TRAIN)


@pytest.mark.parametrize(
    "words", [("evaluate", "tiny"), ("sample", "tiny", "--out", "s.png"), ("complete", "tiny", "--out", "c.png")]
)
def test_verbs_of_one_model_name_the_line(here: Path, words: tuple[str, ...]) -> None:
    done(*TRAIN)
    changed, line = raising(FAMILY, FORWARD)
    write_modules(here, own_shallow=changed)
    with pytest.warns(UserWarning, match="other code"):
        said = refused(*words, "--storage", "r")
    assert f"your own code must work, but own_shallow.py:{line} in forward raises KeyError" in said


def test_readers_meet_no_code(here: Path) -> None:
    done(*TRAIN)
    write_modules(here, own_shallow=raising(FAMILY, FORWARD)[0])
    done("show", "tiny", "--storage", "r")


def search_file(here: Path, **data: object) -> str:
    (here / "mine.py").write_text(
        "from pixeltune import Budget, SearchSpace, TrialConfig\n"
        f"search = SearchSpace(base=TrialConfig.from_toml('tiny.toml').override("
        f"{ {'model.family': SHALLOW, 'model.layers': 1} | data }), budget=Budget(trials=2))\n"
    )
    return str(here / "mine.py")


@pytest.mark.parametrize("start", [FORWARD, INIT])
def test_a_dry_run_names_the_line(here: Path, start: str) -> None:
    file = search_file(here)
    changed, line = raising(FAMILY, start)
    write_modules(here, own_shallow=changed)
    said = refused("--search", file, "--dry-run")
    assert f"own_shallow.py:{line} in " in said
    assert "Traceback" in command("--search", file, "--dry-run", "-v").err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import own_part\nown_part.cut(0)\n", "own_part.py:2 in cut"),
        ("x = 1\n\nx.nothing\n", "mine.py:3"),
        ("x = 1\n  y = 2\n", "mine.py:2"),
        ("def f():\n    return {}['x']\nf()\n", "mine.py:2 in f"),
    ],
)
def test_a_search_file_names_the_line(here: Path, text: str, place: str) -> None:
    write_modules(here, own_part="def cut(x):\n    return 1 / x\n")
    (here / "mine.py").write_text(text)
    for words in (("--dry-run",), ("--storage", "r")):
        assert f"({place})" in refused("--search", str(here / "mine.py"), *words)


def test_a_data_function_names_the_line(here: Path) -> None:
    write_modules(here, own_data=IMAGES)
    line = line_of(IMAGES, 'len({})["x"]')
    place = f"raised TypeError: 'int' object is not subscriptable (own_data.py:{line} in images)"
    assert place in refused(*TRAIN, "--set", "data.name=own_data:images")
    forget()
    assert place in refused("--search", search_file(here, **{"data.name": "own_data:images"}), "--dry-run")
    write_modules(here, own_data="\nimport own_part", own_part="1 / 0")
    assert "(own_part.py:1)" in refused(*TRAIN, "--set", "data.name=own_data:images")


def test_an_installed_package_counts_where_a_configuration_names_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages" / "own_installed"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(raising(FAMILY, FORWARD)[0])
    monkeypatch.syspath_prepend(folder.parent)
    said = refused(*TRAIN, "--set", "model.family=own_installed.nets:ShallowConfig")
    assert f"own_installed/nets.py:{raising(FAMILY, FORWARD)[1]} in forward raises KeyError" in said


def test_a_fault_of_pixeltune_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.config.TrialConfig.from_toml", lambda _file: 3)
    with pytest.raises(AttributeError, match="override"):
        command(*TRAIN)


def test_a_place_comes_back_from_a_traceback() -> None:
    error = KeyError("x")
    note_place(error)
    assert not hasattr(error, "__notes__")
    assert split_place("a\nKeyError: 'x'") == ("a\nKeyError: 'x'", "")
    assert split_place("a\nKeyError: 'x'\nRaised in code of your own: a.py:3 in f\n") == (
        "a\nKeyError: 'x'\n",
        "a.py:3 in f",
    )


def test_a_place_is_that_of_the_cause(here: Path) -> None:
    write_modules(here, own_part="def cut(x):\n    return 1 / x\n")
    with pytest.raises(ConfigError) as caught, running("own_part:cut", "cutting"):
        import_object("own_part:cut")(0)
    assert place_of(caught.value) == "own_part.py:2 in cut"
    assert str(caught.value).startswith("cutting of own_part:cut must work, but raises ZeroDivisionError: ")
    assert place_of(KeyError("x")) == ""
