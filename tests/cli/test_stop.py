"""`pixeltune stop` as a user calls it: what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixeltune.results.stop_requests import StopRequests, read_stop_requests, request_stop
from pixeltune.results.store import SearchStore
from tests.support.commands import command, done, refused, write_tiny
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_state


@contextmanager
def a_search(folder: str = "results") -> Iterator[SearchStore]:
    """A search that runs: trial 0 finished, 1 failed, 2 was interrupted, 3 and 12 run."""
    state = toy_state(Path(folder))
    with state.store.lock():
        play(state, state.plan({}), BEGUN, reported(400, 2.0), FINISHED)
        play(state, state.plan({"optim.lr": 0.02}), ended("failed"))
        play(state, state.plan({"optim.lr": 0.03}), BEGUN, reported(100, 2.0))
        for number in range(3, 13):
            plan = state.plan({"optim.lr": number / 100})
            if number in (3, 12):
                state.start(plan, state.space.resources)
        state.store.write_launch({"budget": {"trials": 20}})
        yield state.store


def requests_of(store: SearchStore) -> StopRequests:
    return read_stop_requests(store.folder)


def test_trials_are_named_by_numbers_and_beginnings() -> None:
    with a_search() as store:
        said = done("stop", "toy", "3", "00012", "12")
        assert (
            said
            == "toy: stop requested of 00003 and 00012; numbers so far stay, and no later launch runs them again.\n"
        )
        assert requests_of(store) == StopRequests(False, frozenset({"00003", "00012"}))
        done("stop", "toy", "2")
        assert requests_of(store).trials == {"00002", "00003", "00012"}, "an interrupted one ends when it runs again"


def test_without_trials_the_launch_ends() -> None:
    with a_search() as store:
        assert "toy: stop requested, as by Ctrl-C" in done("stop", "toy")
        assert requests_of(store) == StopRequests(True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("toy 0", "a trial must run to be stopped, but toy/00000 is finished"),
        ("toy 3 1", "a trial must run to be stopped, but toy/00001 is failed"),
        ("toy 3 4", "a trial must be named by a unique beginning, but 'toy/4' fits none; there are 00000"),
        ("toy 3 ../x", "but 'toy/../x' fits none"),
        ("toyy", "a search must have been begun"),
        ("toy 3 --storage elsewhere", "a search must have been begun"),
        ("", "SEARCH"),
    ],
)
def test_what_cannot_be_stopped_is_refused(words: str, says: str) -> None:
    with a_search() as store:
        assert says in refused("stop", *words.split())
        assert requests_of(store) == StopRequests(), "nothing is written, also for the trials that could be"
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("words", ["toy", "toy 3", "toy 2"])
def test_a_search_that_does_not_run_is_refused(words: str) -> None:
    with a_search() as store:
        pass
    assert "a search must run to be stopped, but no launch works on toy" in refused("stop", *words.split())
    assert requests_of(store) == StopRequests()


def test_a_training_stops_as_by_ctrl_c_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of it cannot be named: it is no search."""
    write_tiny()
    monkeypatch.setattr("pixeltune.results.stop_requests.LOOK_SECONDS", 0.0)
    written = []
    start = "pixeltune.search.state.SearchState.start"
    from pixeltune.search.state import SearchState

    begin = SearchState.start

    def begin_and_stop(state: SearchState, *args: object) -> None:
        begin(state, *args)  # type: ignore[arg-type]
        if not written:
            written.append(refused("stop", "tiny", "0"))
            done("stop", "tiny")

    monkeypatch.setattr(start, begin_and_stop)
    assert command("train", "tiny.toml").code == 130
    assert "is a single training; name no trial to stop it" in written[0]
    (row,) = SearchStore("results", "tiny").trials()
    assert row["status"] == "interrupted"
    request_stop("results/tiny")
    assert "Best " in done("train", "tiny.toml")
