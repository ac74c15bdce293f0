"""A search whose files were merged goes on as one whose files were not. Nothing here starts Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pixeltune.cli import main
from pixeltune.results import compaction
from pixeltune.results.compaction import compact, compact_many
from pixeltune.results.optuna_study import study
from pixeltune.results.parquet_io import Row
from pixeltune.results.search_status import read_status
from pixeltune.results.store import SearchStore
from pixeltune.search.state import SearchState
from tests.support.noop import drive, noop_space

SPACE = noop_space(trials=6, images=800, every=100)
LONGER = noop_space(trials=10, images=800, every=100)
_CLOCKED = ("started_at", "finished_at", "reported_at", "gpu_seconds")


def timeless(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in _CLOCKED} for row in rows]


@pytest.fixture
def twins(tmp_path: Path) -> tuple[SearchStore, SearchStore]:
    """Of one search, one with its files as they were written, and one with merged ones."""
    drive(SPACE, str(tmp_path / "plain"))
    shutil.copytree(tmp_path / "plain", tmp_path / "merged")
    plain, merged = (SearchStore(str(tmp_path / name), "noop") for name in ("plain", "merged"))
    assert compact(merged).written == 2
    assert len(merged.trial_files.names()) == 1
    return plain, merged


def test_a_compacted_search_answers_and_extends_as_one_that_is_not(twins: tuple[SearchStore, SearchStore]) -> None:
    plain, merged = twins
    ledgers = [SearchState(SPACE, store) for store in twins]
    assert ledgers[0].ended == ledgers[1].ended
    assert ledgers[0].curves == ledgers[1].curves
    assert read_status(plain) == read_status(merged)
    assert study(plain.folder).trials == study(merged.folder).trials
    for store in twins:
        drive(LONGER, store.folder.removesuffix("/noop"))
    assert timeless(merged.attempts()) == timeless(plain.attempts())
    assert timeless(merged.curves()) == timeless(plain.curves())
    assert len(merged.trials()) == 10
    compact(merged)
    assert timeless(merged.attempts()) == timeless(plain.attempts())
    assert len(merged.trial_files.names()) == 1


def test_the_verb_merges_and_is_refused_beside_a_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive(SPACE, str(tmp_path))
    words = ["compact", "noop", "--storage", str(tmp_path)]
    store = SearchStore(str(tmp_path), "noop")
    with store.lock():
        assert main(words) == 2
    said = capsys.readouterr().err
    assert "one launch must work on a search at a time" in said
    assert len(said.splitlines()) == 1
    assert len(store.trial_files.names()) == 6
    assert main(words) == 0
    assert capsys.readouterr().out == "noop: 12 files merged into 2; 2 files are there now.\n"
    assert main(["compact", "none", "--storage", str(tmp_path)]) == 2
    assert not (tmp_path / "none").exists()


def test_a_search_of_many_files_merges_them_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive(SPACE, str(tmp_path))
    store = SearchStore(str(tmp_path), "noop")
    assert compact_many(store) == ""
    assert len(store.trial_files.names()) == 6
    monkeypatch.setattr(compaction, "MANY_FILES", 12)
    assert compact_many(store) == "Its 12 files of rows and curves were merged into 2."
    assert compact_many(store) == ""
