"""Results are never shown for, or mixed with, numbers of other images than they were measured on. No Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.cluster.ray_backend import RayBackend
from pixeltune.data import load_data, resolve
from pixeltune.errors import StoreError
from pixeltune.results.store import SearchStore
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.final import open_final
from pixeltune.search.run import Outcome, open_search, run_search
from pixeltune.search.state import SearchState
from pixeltune.space import Budget, SearchSpace
from tests.support.toy_final import asked, final_state, searched, searched_space
from tests.support.toy_search import BEGUN, FACTS, FINISHED, play, reported, toy_config, toy_space, toy_state


class Heard(SearchCallback):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def write_images(path: Path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 4, (80, 4, 4), dtype=np.uint8)
    np.savez(path, train=pixels, test=pixels[:8], levels=4)
    return str(path)


def space_of(path: str, **changes: Any) -> SearchSpace:
    base = toy_config().override({"data.name": "array", "data.path": path, "data.num_valid": 20})
    return searched_space(**({"base": base, "budget": Budget(trials=1)} | changes))


def finished(folder: Path, path: str) -> None:
    """A search `toy` whose only trial has finished on these images."""
    space = space_of(path)
    store, _ = open_search(space, "toy", str(folder))
    state = SearchState(space, store)
    checksum = load_data(space.base.data).identity.checksum
    begun = {"facts": FACTS | {"data_checksum": checksum}, "resumed": []}
    assert play(state, state.plan(space.base_suggestion()), begun, reported(400, 2.0), FINISHED)["data_checksum"]


def launched(folder: Path, space: SearchSpace) -> tuple[Outcome, list[str]]:
    """The outcome of the same command with this space, and what it said."""
    heard = Heard()
    store, manifest = open_search(space, "toy", str(folder))
    return run_search(space, store, manifest, backend=RayBackend(), callback=heard), heard.lines


def test_a_finished_search_answers_for_its_own_images_wherever_they_are(tmp_path: Path) -> None:
    path = write_images(tmp_path / "easy.npz", 0)
    finished(tmp_path, path)
    same = write_images(tmp_path / "same.npz", 0)
    for where in (path, same):
        outcome, said = launched(tmp_path, space_of(where))
        assert (outcome.reason, said) == ("the only trial is done", [])


def test_a_finished_search_does_not_answer_for_other_images(tmp_path: Path) -> None:
    path, other = write_images(tmp_path / "easy.npz", 0), write_images(tmp_path / "hard.npz", 1)
    finished(tmp_path, path)
    with pytest.raises(StoreError) as caught:
        launched(tmp_path, space_of(other))
    words = str(caught.value)
    assert f"toy must go on with the images it began with (checksum {checksum_of(path)} at {path})" in words
    assert f"but got {checksum_of(other)} at {other}" in words
    assert "another name or --storage" in words
    assert "\n" not in words


def checksum_of(path: str) -> str:
    return load_data(space_of(path).base.data).identity.checksum


def test_an_extended_search_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    """Refused before a cluster is asked for."""
    finished(tmp_path, write_images(tmp_path / "easy.npz", 0))
    other = write_images(tmp_path / "hard.npz", 1)
    with pytest.raises(StoreError, match="must go on with the images it began with"):
        launched(tmp_path, space_of(other, budget=Budget(trials=2)))


@pytest.mark.parametrize("name", ["array", "nowhere:images", "mnist"])
def test_a_finished_search_says_that_images_which_are_gone_were_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Moved, of a package that is not installed, or to be downloaded, which an answer from Parquet does not do."""
    monkeypatch.setenv("PIXELTUNE_DATA", str(tmp_path / "data"))
    finished(tmp_path, write_images(tmp_path / "easy.npz", 0))
    gone = {"data.name": name, "data.path": str(tmp_path / "gone"), "data.download": name == "mnist"}
    space = space_of("unused", base=space_of("unused").base.override(gone))
    store = SearchStore(str(tmp_path), "toy")
    heard = Heard()
    outcome = run_search(space, store, store.manifest(), backend=RayBackend(), callback=heard)
    assert outcome.reason == "the only trial is done"
    (line,) = heard.lines
    assert line.startswith("Not checked: whether toy was measured on these images, which cannot be read now (")


def test_the_baseline_counts_where_no_row_says_of_which_images_it_is(tmp_path: Path) -> None:
    """All trials failed before they were built; the stored baseline is of the first images."""
    space = space_of(write_images(tmp_path / "easy.npz", 0))
    store, _ = open_search(space, "toy", str(tmp_path))
    state = SearchState(space, store)
    play(state, state.plan(space.base_suggestion()), crash="ValueError: x")
    with pytest.raises(StoreError, match="must go on with the images it began with"):
        launched(tmp_path, space_of(write_images(tmp_path / "hard.npz", 1)))


def test_a_finished_final_does_not_answer_for_other_images(tmp_path: Path) -> None:
    searched(tmp_path, [(1.5, 300)])
    request = asked(tmp_path, top=1, seeds=1)
    state, space = final_state(request)
    checksum = resolve(space.base).data.identity.checksum
    begun = {"facts": FACTS | {"data_checksum": checksum}, "resumed": []}
    play(state, state.plan({}), begun, reported(300, 2.0), FINISHED)
    store, manifest, space = open_final(request)
    assert run_search(space, store, manifest, backend=RayBackend(), callback=Heard()).reason == "the only trial is done"
    row = store.trials()[0]
    store.write_trial(row | {"data_checksum": "0123456789abcdef"})
    with pytest.raises(StoreError, match="toy-final must go on with the images it began with"):
        run_search(space, store, manifest, backend=RayBackend(), callback=Heard())


def test_a_trial_on_a_machine_with_other_images_does_not_count(tmp_path: Path) -> None:
    """Each machine reads the data at its own path."""
    state = toy_state(tmp_path, toy_space(scheduler=None))
    play(state, state.plan({}), BEGUN, reported(400, 2.0), FINISHED)
    other = {"facts": FACTS | {"data_checksum": "xyz"}, "resumed": []}
    for again in (state, toy_state(tmp_path, toy_space(scheduler=None))):
        row = play(again, again.plan({}), other, reported(400, 1.0), FINISHED)
        assert (row["status"], row["valid_bits_per_dim"]) == ("failed", None)
        assert row["reason"].startswith("its images have checksum xyz, those of the search abc")
    assert state.best()["valid_bits_per_dim"] == 2.0
