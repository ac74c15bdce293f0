"""What a search prints at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from pixeltune.cli.search_summary import remove_galleries, show_failures, show_outcome
from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore
from pixeltune.sampling import save_grid
from pixeltune.search.run import Outcome
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.space import SearchSpace
from tests.support.commands import done, write_tiny
from tests.support.results import make_row, make_space, make_store
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_state


def said_of(store: SearchStore, state: SearchState, *, interrupted: bool = False) -> str:
    out = Console(record=True, width=160)
    show_outcome(out, state.space, store, Outcome(state, interrupted, "all are done"), storage="results")
    return out.export_text()


def test_weights_that_cannot_be_read_cost_a_picture_and_not_the_end() -> None:
    done("train", "--config", write_tiny())
    store = SearchStore("results", "tiny")
    space = SearchSpace(base=TrialConfig.from_toml("tiny.toml"))
    Path(weights_file(store.checkpoint("00000"))).write_bytes(b"cut")
    said = said_of(store, SearchState(space, store))
    assert "00000  finished" in said
    assert "No samples of trial 00000: weights must be a whole safetensors file" in said


def test_a_search_that_was_stopped_counts_what_it_interrupted_and_draws_nothing() -> None:
    done("train", "--config", write_tiny())
    store = SearchStore("results", "tiny")
    state = SearchState(SearchSpace(base=TrialConfig.from_toml("tiny.toml")), store)
    play(state, state.plan({}))
    said = said_of(store, state, interrupted=True)
    assert "Trials: 1 finished, 1 interrupted." in said
    assert "Samples" not in said
    assert not Path(store.samples_folder).exists()


@pytest.mark.parametrize(("num_test", "has_final"), [(360, True), (None, True), (0, False)])
def test_a_final_is_proposed_where_there_is_a_test_set(tmp_path: Path, num_test: int | None, has_final: bool) -> None:
    state = toy_state(tmp_path)
    row = play(state, state.plan({}), BEGUN, reported(400, 2.0), FINISHED)
    state.ended[row["trial"]] = row | {"num_test": num_test}
    assert ("pixeltune final toy" in said_of(state.store, state)) == has_final


@pytest.mark.parametrize(
    ("ends", "lines"),
    [
        (3 * ["failed"], ["3 × failed: so it was", "give the same command: it"]),
        (
            ["failed", "oom"],
            ["1 × failed: so it was", "1 × oom: so it was", "same command with --retry-failed"],
        ),
        (["failed", "finished"], []),
        ([], []),
    ],
)
def test_a_search_without_a_result_says_why_and_what_to_do(tmp_path: Path, ends: list[str], lines: list[str]) -> None:
    state = toy_state(tmp_path)
    for status in ends:
        messages = [BEGUN, reported(400, 2.0), FINISHED] if status == "finished" else [ended(status)]
        play(state, state.plan({}), *messages)
    out = Console(record=True, width=160)
    show_failures(out, state)
    said = out.export_text()
    assert [line for line in lines if line not in said] == []
    assert ("No trial has a result" in said) == bool(lines)


def test_the_end_of_a_search_removes_the_galleries_that_it_drew_of_trials_that_are_no_longer_kept() -> None:
    space = make_space(keep=2)
    store = make_store("results", "toy", space)
    for trial in range(9):
        store.write_trial(make_row(trial, valid_bits_per_dim=2.0 - trial / 10, bits_verified=True))
    drawn = "toy/{trial}, validation images, seed 0: 72 samples"
    captions = {
        "00000.png": drawn,  # no longer among the best two
        "00001.png": drawn.replace("toy", "its old name"),
        "00002.png": "toy/{trial}, valid images, seed 0: 72 samples",  # of `pixeltune sample`
        "00003.png": "a plot of mine",
        "00005-3200-images.png": drawn,  # of --galleries
        "00008.png": drawn,  # the best
        "00077.png": drawn,  # of no trial that ended
        "notes.png": drawn,
    }
    for name, caption in captions.items():
        about = caption.format(trial=name[:5])
        save_grid(torch.zeros(1, 1, 4, 4), Path(store.samples_folder, name), 17, caption=about)
    Path(store.samples_folder, "00004.png").write_bytes(b"no picture")
    Path(store.samples_folder, "00006.png").mkdir()
    out = Console(record=True, width=160)
    show_outcome(out, space, store, Outcome(SearchState(space, store), False, "done"), storage="results")
    left = sorted(path.name for path in Path(store.samples_folder).iterdir())
    assert left == sorted({*captions, "00004.png", "00006.png"} - {"00000.png", "00001.png"})
    assert "00008.png" in out.export_text()


def test_a_search_without_pictures_ends_as_before() -> None:
    store = make_store("results", "toy")
    remove_galleries(store, ["00000"])
    assert not Path(store.samples_folder).exists()
