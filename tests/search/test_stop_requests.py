"""Requests of other shells to stop trials, or the launch, in searches without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from pixeltune import files
from pixeltune.results.compaction import compact
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import leaderboard
from pixeltune.results.search_status import read_status
from pixeltune.results.stop_requests import (
    LOOK_SECONDS,
    StopRequestReader,
    StopRequests,
    read_stop_requests,
    remove_stop_request,
    request_stop,
)
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.run import Outcome, Round, Stop, open_search, run_search
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.space import Budget, Resources, SearchSpace
from tests.support.toy_search import (
    BEGUN,
    FACTS,
    FINISHED,
    ended,
    play,
    reported,
    sampler_params,
    toy_config,
    toy_space,
    toy_state,
)

PROGRESS = {"progress": {"images_seen": 50, "images_per_second": 1.0, "train_bits_per_dim": None}}


def begun(folder: Path, *messages: dict[str, Any], space: SearchSpace | None = None) -> SearchState:
    """A search of which trial 0 runs."""
    state = toy_state(folder, space or toy_space(scheduler=None))
    state.start(state.plan({"optim.lr": 0.01}), state.space.resources)
    for message in messages:
        assert state.receive("00000", message) is None
    return state


@pytest.mark.parametrize("message", [BEGUN, PROGRESS, reported(200, 2.0)], ids=["begun", "progress", "report"])
def test_a_trial_stops_at_its_next_message(tmp_path: Path, message: dict[str, Any]) -> None:
    state = begun(tmp_path, *([] if message is BEGUN else [BEGUN, reported(100, 2.5)]))
    state.request_stop({"00000"})
    assert state.receive("00000", message) == "stopped by hand"
    row = state.finish("00000")
    images = {"resumed": None, "progress": 100, "report": 200}[next(key for key in message if key != "facts")]
    assert (row["status"], row["reason"], row["images_seen"]) == ("stopped", "stopped by hand", images)
    assert state.store.trials() == [row | {"schema_version": 1, "search_id": state.store.search_id}]


@pytest.mark.parametrize("status", ["finished", "diverged", "rejected"])
def test_a_trial_that_ends_by_itself_is_not_stopped(tmp_path: Path, status: str) -> None:
    state = begun(tmp_path, BEGUN, reported(100, 2.5))
    state.request_stop({"00000"})
    assert state.receive("00000", ended(status)) is None
    assert state.finish("00000")["status"] == status


def test_other_trials_go_on(tmp_path: Path) -> None:
    state = begun(tmp_path, BEGUN)
    state.request_stop({"00001", "00007"})
    assert state.receive("00000", reported(100, 2.5)) is None


def test_a_stopped_trial_keeps_its_number_and_is_not_run_again(tmp_path: Path) -> None:
    """It is ranked as a pruned one is, and a merged file keeps it."""
    state = begun(tmp_path, BEGUN, reported(100, 2.5))
    state.request_stop({"00000"})
    state.receive("00000", reported(200, 2.75))
    state.finish("00000")
    play(state, state.plan({"optim.lr": 0.02}), BEGUN, reported(400, 2.6), FINISHED)
    for _ in range(2):
        again = toy_state(tmp_path, toy_space(scheduler=None))
        assert again.plans_to_resume() == again.pending() == []
        places = leaderboard(again.ended.values())
        assert [(place["trial"], place["status"], place["rank"]) for place in places] == [
            ("00000", "stopped", 1),
            ("00001", "finished", 2),
        ]
        assert (places[0]["valid_bits_per_dim"], places[0]["images_seen"]) == (2.5, 200)
        with again.store.lock():
            compact(again.store)
    assert [trial.state for trial in study(state.store.folder).trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert read_status(state.store).failures == {}


@pytest.mark.parametrize("sampler", sampler_params())
@pytest.mark.parametrize("reports", [0, 1, 3])
def test_every_sampler_takes_a_stopped_trial_as_a_pruned_one(tmp_path: Path, sampler: str, reports: int) -> None:
    """One without a report says nothing about its configuration. A resumed search proposes the same."""
    proposals = {}
    for status in ("stopped", "pruned"):
        values = {"grid": {"optim.lr": [number / 1000 for number in range(1, 13)]}} if sampler == "grid" else {}
        vary = {"optim.lr": FloatDistribution(1e-3, 1e-1, log=True)}
        space = toy_space(scheduler=None, sampler=sampler, vary=vary, **values)
        state = toy_state(tmp_path / status, space)
        searcher = OptunaSearcher(space, state)
        for number in range(8):
            plan = searcher.next_plan()
            assert plan is not None
            count = reports if number == 4 else 4
            messages = [reported(100 * each, 3.0 - number / 10) for each in range(1, count + 1)]
            play(state, plan, BEGUN, *messages, ended(status) if number == 4 else FINISHED)
        again = OptunaSearcher(space, toy_state(tmp_path / status, space))
        outcome = again.study().trials[4].state
        assert (outcome is TrialState.FAIL) == (status == "stopped" and reports == 0)
        proposal = again.next_plan()
        assert proposal == searcher.next_plan()
        proposals[status] = proposal
    if reports:
        assert proposals["stopped"] == proposals["pruned"]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_launch_asks_the_storage_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), []
    monkeypatch.setattr(
        "pixeltune.results.stop_requests.read_stop_requests", lambda folder: looks.append(folder) or StopRequests(True)
    )
    reader = StopRequestReader(str(tmp_path), clock)
    for _ in range(100):
        assert not reader.look().is_launch
    assert looks == []
    clock.now += LOOK_SECONDS
    for _ in range(100):
        assert reader.look().is_launch
    assert len(looks) == 1


def test_a_storage_that_does_not_answer_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    reader = StopRequestReader(str(tmp_path), clock)
    request_stop(str(tmp_path), ["00003"])
    clock.now += LOOK_SECONDS
    assert reader.look().trials == {"00003"}
    with monkeypatch.context() as patched:
        patched.setattr(files, "list_names", _refuse)
        clock.now += LOOK_SECONDS
        assert reader.look().trials == {"00003"}


def _refuse(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_requests_are_files_until_they_are_removed(tmp_path: Path) -> None:
    folder = str(tmp_path / "toy")
    assert read_stop_requests(folder) == StopRequests()
    request_stop(folder, ["00001", "00012"])
    request_stop(folder, ["00001"])
    assert read_stop_requests(folder) == StopRequests(False, frozenset({"00001", "00012"}))
    request_stop(folder)
    remove_stop_request(folder, "00001")
    remove_stop_request(folder, "00001")
    assert read_stop_requests(folder) == StopRequests(True, frozenset({"00012"}))


Shell = Callable[[int, str], None]


class WatchedMachines:
    """A backend that runs two trials at once, message by message, and lets another shell act before each message."""

    def __init__(self, shell: Shell, *, per_look: float = LOOK_SECONDS) -> None:
        self.steps = 0
        self._shell = shell
        self._per_look = per_look

    def require(self, space: SearchSpace) -> None:
        """Refuse nothing."""

    @contextmanager
    def start(self, state: SearchState, stop: Stop, *_: Any) -> Iterator[WatchedMachines]:
        self.state, self.stop = state, stop
        clock = self.clock = Clock()
        stop._requests = StopRequestReader(state.store.folder, clock)
        yield self

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        return wanted, 2

    def check(self, resources: Resources) -> None:
        """Refuse nothing."""

    def run(self, round_: Round) -> None:
        state, source = self.state, round_.source()
        checksum = state.store.manifest().data_checksum
        running: dict[str, list[dict[str, Any]]] = {}
        while running or len(state.ended) < state.space.budget.trials:
            while len(running) < 2 and len(state.ended) + len(running) < state.space.budget.trials:
                plan = source.next_plan()
                assert plan is not None
                state.start(plan, round_.resources)
                bits = 2.0 + plan.number / 10
                first = {"facts": FACTS | {"data_checksum": checksum}, "resumed": []}
                running[plan.trial] = [first, PROGRESS, *(reported(100 * each, bits) for each in range(1, 5)), FINISHED]
            for trial in list(running):
                self.steps += 1
                self._shell(self.steps, state.store.folder)
                self.clock.now += self._per_look
                if self.stop.due():
                    for each in list(state.running):
                        state.finish(each)
                    return
                message = running[trial].pop(0)
                if state.receive(trial, message) is not None or "end" in message:
                    state.finish(trial)
                    del running[trial]


def search(folder: Path, shell: Shell, **options: Any) -> Outcome:
    base = toy_config().override({"data.num_valid": 100})
    space = toy_space(base=base, scheduler=None, budget=Budget(trials=6))
    store, manifest = open_search(space, "toy", str(folder))
    return run_search(space, store, manifest, backend=WatchedMachines(shell, **options), callback=SearchCallback())


def nothing(_step: int, _folder: str) -> None:
    """Request nothing."""


@pytest.mark.parametrize("step", [2, 5, 9, 12])
def test_a_request_ends_its_trial_and_leaves_the_others(tmp_path: Path, step: int) -> None:
    def shell(now: int, folder: str) -> None:
        if now == step:
            request_stop(folder, ["00001"])

    outcome = search(tmp_path, shell)
    statuses = {row["trial"]: row["status"] for row in outcome.state.store.trials()}
    assert statuses == dict.fromkeys((f"{number:05d}" for number in range(6)), "finished") | {"00001": "stopped"}
    assert not outcome.interrupted
    assert read_stop_requests(outcome.state.store.folder) == StopRequests()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    again = search(tmp_path, nothing)
    assert again.reason == "all 6 trials are done"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("step", [1, 4, 20])
def test_a_request_ends_the_launch_as_ctrl_c_does(tmp_path: Path, step: int) -> None:
    """The next launch goes on: the request is gone."""

    def shell(now: int, folder: str) -> None:
        if now == step:
            request_stop(folder)

    outcome = search(tmp_path, shell)
    assert (outcome.interrupted, outcome.reason) == (True, "interrupted")
    left = [row["status"] for row in outcome.state.store.trials() if row["status"] != "finished"]
    assert left == ["interrupted", "interrupted"]
    assert read_status(outcome.state.store).ended == "interrupted"
    assert not read_stop_requests(outcome.state.store.folder).is_launch
    again = search(tmp_path, nothing)
    assert {row["status"] for row in again.state.store.trials()} == {"finished"}


def test_a_request_that_nothing_honoured_stops_no_later_launch(tmp_path: Path) -> None:
    """Such as one that came as the launch ended, or was killed."""
    outcome = search(tmp_path, lambda now, folder: request_stop(folder) if now == 9 else None)
    request_stop(outcome.state.store.folder)
    request_stop(outcome.state.store.folder, ["00001", "00005"])
    again = search(tmp_path, nothing)
    assert not again.interrupted
    assert {row["status"] for row in again.state.store.trials()} == {"finished"}
    request_stop(outcome.state.store.folder)
    assert not search(tmp_path, nothing).interrupted
    assert read_stop_requests(outcome.state.store.folder) == StopRequests()


def test_an_interrupted_trial_that_is_to_stop_ends_when_it_runs_again(tmp_path: Path) -> None:
    state = begun(tmp_path, BEGUN, reported(100, 2.5))
    state.request_stop({"00000"})
    state.retry("00000", None, interruption="its node was taken away")
    assert state.receive("00000", BEGUN | {"resumed": []}) == "stopped by hand"
    row = state.finish("00000")
    assert (row["status"], row["attempt"]) == ("stopped", 2)
