"""`pixeltune report` as a user calls it."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

import pixeltune.packages
from pixeltune.cli import search as search_verb
from pixeltune.config import TrialConfig
from pixeltune.packages import install_command
from pixeltune.report.sections.commands import rerun
from pixeltune.report.snapshot import read_snapshot
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.space import SearchSpace, load_search
from tests.support.commands import command, done, refused
from tests.support.optional import why_not
from tests.support.results import make_store

CONFIG = TrialConfig.build(
    {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
)
SPACE = SearchSpace(base=CONFIG, vary={"optim.lr": FloatDistribution(1e-4, 1e-1)})


@pytest.fixture
def store() -> SearchStore:
    """A search that has begun, in results/."""
    return make_store("results", "toy", SPACE)


@pytest.mark.needs("plotly", "jinja2")
def test_a_report_lies_where_the_command_was_given_or_where_it_is_told_to(store: SearchStore) -> None:
    assert re.match(r"Wrote toy-report\.html \(\d\.\d MB\): 0 trials", done("report", "toy"))
    assert Path("toy-report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    done("report", "toy", "--out", "pages/a.html")
    assert Path("pages/a.html").stat().st_size > 5e5


@pytest.mark.needs("plotly", "jinja2")
def test_several_searches_are_one_file(store: SearchStore) -> None:
    make_store("results", "other", SPACE)
    assert re.match(r"Wrote report\.html \(\d\.\d MB\): 0 trials", done("report", "toy", "other", "toy"))
    text = Path("report.html").read_text(encoding="utf-8")
    assert text.count('<article id="') == 2
    assert "<title>toy, other – pixeltune report</title>" in text
    assert "a search must have been begun" in refused("report", "toy", "nothing", "--out", "new.html")
    assert not Path("new.html").exists()


def test_a_search_that_is_not_there_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    assert "a search must have been begun to be read" in refused("report", "nothing")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_the_work(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_store: SearchStore) -> None:
        raise AssertionError("the search was read")

    monkeypatch.setattr("pixeltune.report.snapshot.read_snapshot", never)
    Path("folder.html").mkdir()
    Path("file").write_text("", encoding="utf-8")
    assert "folder.html is a folder" in refused("report", "toy", "--out", "folder.html")
    assert "a file must be writable, but file/a.html is not" in refused("report", "toy", "--out", "file/a.html")
    assert "--out must be a .html file, but got 'a.pdf'" in refused("report", "toy", "--out", "a.pdf")
    assert "file/curves.png is not" in refused("report", "toy", "--png", "file")
    assert "a file must be writable, but file/b/a.html is not" in refused("report", "toy", "--out", "file/b/a.html")


@pytest.mark.parametrize("missing", ["plotly", "jinja2", "kaleido", "a browser"])
def test_what_cannot_be_written_is_said_before_what_is_missing(
    store: SearchStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    monkeypatch.setattr(pixeltune.packages, "has_package", lambda name: name != missing)
    if missing == "a browser" and not why_not("kaleido"):
        monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None)
    Path("file").write_text("", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    assert "file/curves.png is not" in refused("report", "toy", "--png", "file")
    if missing != "a browser" or not why_not("plotly", "jinja2", "kaleido"):
        refused("report", "toy", "--out", "new/a.html", "--png", "figures")
    assert sorted(tmp_path.iterdir()) == before, "a refused report makes no folder"


@pytest.mark.parametrize("missing", ["plotly", "jinja2", "kaleido"])
def test_a_missing_package_is_one_line(store: SearchStore, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(pixeltune.packages, "has_package", lambda name: name != missing)
    line = refused("report", "toy", "--png", "figures")
    assert f"but {missing} is not installed; {install_command([missing])}" in line


@pytest.mark.needs("plotly", "jinja2", "kaleido")
def test_figures_without_a_browser_say_what_to_install(store: SearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None)
    assert "apt-get install chromium" in refused("report", "toy", "--png", "figures")


OVERRIDES: list[dict[str, Any]] = [
    {},
    {"model.channels": 24, "data.path": 'my data\'s "best"; rm -rf', "train.precision": "float32"},
    {"scheduler": None, "data.num_valid": None, "seed": 3},
    {"scheduler": "median", "scheduler.grace": 8000},
    {"scheduler.rungs": [4000, 12000], "optim.lr": 0.1 + 0.2},
]


@pytest.mark.parametrize("overrides", OVERRIDES)
@pytest.mark.parametrize("name", ["digits_quick", "digits_quick-b"])
def test_the_command_of_a_report_launches_the_same_search(
    monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], name: str
) -> None:
    space = load_search("digits_quick").override(overrides)
    store = make_store("my results", name, space, overrides=overrides)
    store.write_launch({"budget": {"trials": 40, "hours": 2.5}})
    first = rerun(read_snapshot(store))[0]
    assert first.words.startswith("The same search: checked against digits_quick")
    launched: list[Any] = []

    def instead(_out: Any, space: SearchSpace, name: str, settings: dict[str, Any], options: argparse.Namespace) -> int:
        launched.append((space, SearchManifest.of(space, name, overrides=settings), options.storage))
        return 0

    monkeypatch.setattr(search_verb, "_run", instead)
    words = shlex.split(first.command)
    assert words[:2] == ["python", "launch.py"]
    assert command(*words[2:]).code == 0
    [(again, manifest, storage)] = launched
    assert manifest.difference(store.manifest()) == []
    assert manifest.overrides == store.manifest().overrides
    assert (again.budget.trials, again.budget.hours) == (40, 2.5)
    assert storage == "my results"


def test_a_search_file_that_has_changed_since_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store("results", "digits_quick", load_search("digits_quick").override({"model.layers": 3}))
    [first, *_] = rerun(read_snapshot(store))
    assert "this pixeltune's differs (model.layers: 4 here, 3 in the results" in first.words


def test_a_file_of_ones_own_is_asked_for(store: SearchStore) -> None:
    [first, *_] = rerun(read_snapshot(store))
    assert "--search FILE.py --name toy" in first.command
    assert "pixeltune ships no search called toy" in first.words


def test_the_other_verbs_load_no_plotly(store: SearchStore) -> None:
    import subprocess

    code = "import sys; from pixeltune.cli import main; main(['status', 'toy']); print('plotly' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.splitlines()[-1] == "False"
