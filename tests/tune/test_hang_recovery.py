"""What is done about trials of Ray Tune that hang, are dropped or cannot start; Ray is faked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from pixeltune.errors import SearchError
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.run import Round, Stop
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.space import Budget, Patience, Resources, SearchSpace
from pixeltune.tune import hang_recovery
from pixeltune.tune.adapters import TuneCallback, TuneScheduler, TuneSearcher
from pixeltune.tune.hang_recovery import HangRecoveryCallback
from pixeltune.tune.run_state import TuneRunState
from pixeltune.tune.runner import TuneRunner
from pixeltune.tune.trainables import result_of
from pixeltune.tune.watchdog import LauncherWatchdog, LeakedPlacementGroups, Watchdog
from tests.support.toy_search import BEGUN, FINISHED, play, reported, toy_space, toy_state

STARVED = "ray.train.ControllerError: Training failed …:\nThe worker group startup timed out after 60.0 seconds waiting"


class Search:
    """The hooks of a run of Tune as `TuneRunner` makes them, with a clock that the test moves."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, workers: int = 1, most: int = 2, **changes: Any
    ) -> None:
        space = toy_space(scheduler=None, patience=Patience(minutes=1, start_minutes=10), **changes)
        self.state = toy_state(folder, space)
        self.source = OptunaSearcher(space, self.state)
        self.could_hold = True
        self.clock = 0.0
        self.shown = 0
        self.watchdog = Watchdog(space.patience, clock=lambda: self.clock)
        self.said: list[str] = []
        self.killed: list[str] = []
        self.run_state = TuneRunState(
            self.source,
            self.state,
            lambda: None,
            resources=Resources(workers=workers),
            on_progress=self.show,
            concurrent=most,
            say=self.said.append,
            could_hold=lambda: self.could_hold,
            watchdog=self.watchdog,
        )
        self.crash_file = folder / "error.txt"
        self.searcher = TuneSearcher(self.run_state, str(folder))
        self.scheduler, self.callback = TuneScheduler(self.run_state), TuneCallback(self.run_state)
        self.rescue = HangRecoveryCallback(self.run_state, LauncherWatchdog(100))
        self.trials: list[Any] = []
        self.has_room = False
        monkeypatch.setattr(hang_recovery, "_has_room", lambda _resources: self.has_room)
        monkeypatch.setattr(hang_recovery, "_free", lambda: "0 CPUs")
        monkeypatch.setattr(hang_recovery.ray, "kill", lambda actor, **_options: self.killed.append(actor))

    def show(self) -> None:
        self.shown += 1

    def suggest(self, name: str) -> Any:
        config = self.searcher.suggest(name)
        assert isinstance(config, dict)
        state = SimpleNamespace(ray_actor=None)
        self.trials.append(
            SimpleNamespace(
                trial_id=name,
                status="PENDING",
                config=config,
                temporary_state=state,
                error_file=str(self.crash_file),
                last_result={},
                max_failures=1,
                num_failures=0,
            )
        )
        return self.trials[-1]

    def run(self, name: str) -> Any:
        trial = self.suggest(name)
        trial.status, trial.temporary_state.ray_actor = "RUNNING", f"actor of {name}"
        self.callback.on_trial_start(0, self.trials, trial)
        self.tell(trial, BEGUN)
        return trial

    def tell(self, trial: Any, message: dict[str, Any]) -> None:
        self.scheduler.on_trial_result(None, trial, result_of(message))

    def die(self, trial: Any, *, again: bool, crash: str = "") -> None:
        """As Tune reports it."""
        self.crash_file.write_text(f"Failure # 1 (occurred at 2026)\n{crash}\n")
        self.scheduler.on_trial_error(None, trial)
        if again:
            trial.status, trial.temporary_state.ray_actor = "PENDING", None
            self.callback.on_trial_recover(0, self.trials, trial)
        else:
            self.searcher.on_trial_complete(trial.trial_id, error=True)
            trial.status = "ERROR"

    def pass_by(self, seconds: float) -> None:
        for _ in range(int(seconds // 5)):
            self.clock += 5
            self.rescue.on_step_begin(0, self.trials)

    @property
    def rows(self) -> list[tuple[str, int, str]]:
        return [(row["trial"], row["attempt"], row["status"]) for row in self.state.store.attempts()]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Search]:
    return lambda **options: Search(tmp_path, monkeypatch, **options)


def test_a_silent_trial_is_killed_and_its_row_says_why(begin: Callable[..., Search]) -> None:
    search = begin()
    trial, other = search.run("a"), search.run("b")
    search.tell(trial, reported(100, 2.0))
    for _ in range(7):
        search.pass_by(10)
        search.tell(other, reported(100, 2.0))
    assert search.killed == ["actor of a"]
    assert search.said[0].startswith("00000: no report in 65 s")
    search.die(trial, again=True)
    first = search.state.store.attempts()[0]
    assert (first["status"], first["reason"][:18]) == ("failed", "no report in 65 s,")
    search.pass_by(50)
    assert search.killed == ["actor of a"], "it waits for its next attempt"
    assert search.run_state.failure is None


def test_the_next_attempt_is_told_which_one_it_is(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.run("a")
    search.die(trial, again=True)
    assert json.loads(trial.config["task"])["attempt"] == 2
    assert trial.config["run_name"] == "00000-2", "else Train would find the earlier attempt's state there"


def test_what_has_ended_is_not_tried_again_when_its_process_dies(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.run("a")
    search.tell(trial, reported(400, 2.0))
    search.tell(trial, FINISHED)
    assert trial.max_failures == 0
    search.die(trial, again=False)
    assert search.rows == [("00000", 1, "finished")]


def test_a_process_may_die_before_it_begins(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.suggest("a")
    search.die(trial, again=True)
    search.die(trial, again=False)
    assert search.run_state.failure is None
    assert search.rows == [("00000", 1, "failed"), ("00000", 2, "failed")]


def test_a_trial_that_tune_drops_is_planned_again(begin: Callable[..., Search]) -> None:
    search = begin(most=1)
    trial = search.suggest("a")
    assert search.searcher.suggest("b") is None, "one at a time"
    trial.status = "ERROR"
    search.pass_by(5)
    assert [plan.trial for plan in search.run_state.dropped] == ["00000"]
    assert search.rows == []
    search.run("b")
    assert list(search.state.running) == ["00001"]
    again = OptunaSearcher(search.state.space, search.state, waiting=search.run_state.dropped)
    assert again.next_plan() == search.run_state.dropped[0]


def test_a_retry_that_tune_drops_is_interrupted_and_resumed_by_the_same_launch(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.run("a")
    search.die(trial, again=True)
    trial.status = "ERROR"
    search.pass_by(5)
    assert search.rows == [("00000", 1, "failed"), ("00000", 2, "interrupted")]
    assert search.run_state.dropped == []
    assert [(plan.trial, plan.attempt) for plan in search.state.plans_to_resume()] == [("00000", 3)]


FAILED_RESET = """ray::ImplicitFunc.reset() (pid=7, ip=192.0.2.2, repr=train_here)
  File "trainable.py", line 674, in _setup_logdir
    os.environ.setdefault("TUNE_ORIG_WORKING_DIR", os.getcwd())
FileNotFoundError: [Errno 2] No such file or directory"""


@pytest.mark.parametrize("crash", [FAILED_RESET, "ray.exceptions.ActorDiedError: The actor died unexpectedly", ""])
def test_a_trial_whose_process_ends_before_it_begins_is_planned_again(begin: Callable[..., Search], crash: str) -> None:
    """Tune does not try such a trial again, and it is not the trial's fault; there is no row for what never began."""
    search = begin(most=1)
    trial = search.suggest("a")
    search.die(trial, again=False, crash=crash)
    assert search.run_state.failure is None
    assert [plan.trial for plan in search.run_state.dropped] == ["00000"]
    assert search.rows == []


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("__init__", "FileNotFoundError: x"),
        ("train", "ModuleNotFoundError: No module named 'pixeltune.errors'"),
        ("train", "ModuleNotFoundError: No module named 'pixeltune'"),
        ("train", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("train", "pixeltune.errors.DataError: `data.name` … (ModuleNotFoundError: No module named 'tests.support.x')"),
    ],
)
def test_a_process_that_cannot_be_prepared_is_the_trials_fault_only_after_three_times(
    begin: Callable[..., Search], step: str, error: str
) -> None:
    """A node that joins on a shared disk unpacks the job's code once more, and others miss it for a moment."""
    search = begin()
    trial = search.suggest("a")
    for attempt in range(1, 5):
        crash = f"ray::ImplicitFunc.{step}() (pid={attempt}, ip=192.0.2.2)\n{error}"
        search.die(trial, again=True, crash=crash)
        assert search.run_state.tries_left("a") == (1 if attempt <= 3 else 0)
    assert [status for *_, status in search.rows] == [*3 * ["interrupted"], "failed", "running"]


def test_a_file_that_does_not_exist_is_the_trials_own_fault(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.suggest("a")
    search.die(trial, again=True, crash="FileNotFoundError: [Errno 2] No such file or directory: 'weights.pt'")
    assert [status for *_, status in search.rows] == ["failed", "running"]


@pytest.mark.parametrize("name", ["pixeltune.eros", "pixeltune.eros.x", "there_is_none", "there_is_none.x"])
def test_a_module_that_does_not_exist_is_the_trials_own_fault(begin: Callable[..., Search], name: str) -> None:
    search = begin()
    trial = search.suggest("a")
    search.die(trial, again=True, crash=f"ModuleNotFoundError: No module named '{name}'")
    assert [status for *_, status in search.rows] == ["failed", "running"]


def test_a_retry_in_a_process_that_cannot_be_used_again_is_resumed_by_the_same_launch(
    begin: Callable[..., Search],
) -> None:
    search = begin()
    trial = search.run("a")
    search.die(trial, again=True, crash="ValueError: x")
    search.die(trial, again=False, crash=FAILED_RESET)
    assert search.rows == [("00000", 1, "failed"), ("00000", 2, "interrupted")]
    assert [(plan.trial, plan.attempt) for plan in search.state.plans_to_resume()] == [("00000", 3)]


def test_an_actor_that_cannot_begin_the_next_trial_is_killed(begin: Callable[..., Search]) -> None:
    search = begin()
    search.suggest("a").temporary_state.ray_actor = "reused"
    search.pass_by(180)
    assert search.killed == []
    search.pass_by(10)
    assert search.killed == ["reused"]


def test_workers_whose_nodes_are_still_to_start_go_on_waiting(begin: Callable[..., Search]) -> None:
    """As on a cluster that begins without workers, or whose spot machines were all taken away."""
    search = begin(workers=2, most=2)
    search.rescue._groups_due = 1e9
    search.could_hold = False
    trial = search.run("a")
    for _ in range(3):
        search.die(trial, again=True, crash=STARVED)
        search.watchdog._now += 200
    assert search.run_state.failure is None
    assert search.run_state.concurrent == 2
    assert search.said[-1] == "00000: its workers found no place in the cluster; it waits for nodes that are to start."
    search.tell(trial, BEGUN)
    for _ in range(4):
        search.die(trial, again=True, crash=STARVED)
        search.watchdog._now += 200
    assert search.run_state.failure is None, "since it ran, less than its ten minutes"
    search.die(trial, again=True, crash=STARVED)
    assert isinstance(search.run_state.failure, SearchError)
    assert "patience.start_minutes, but none that could hold them have in 10 min" in str(search.run_state.failure)


def test_workers_that_find_no_place_are_no_fault_of_the_trial(begin: Callable[..., Search]) -> None:
    search = begin(workers=2, most=2)
    search.rescue._groups_due = 1e9
    trial, _other = search.run("a"), search.run("b")
    search.die(trial, again=True, crash=STARVED)
    assert search.run_state.concurrent == 1
    assert search.said == ["00000: its workers found no place in the cluster; from now on 1 trial at a time."]
    assert search.rows[0] == ("00000", 1, "interrupted")
    assert search.run_state.failure is None


def test_where_no_other_trial_runs_it_waits_for_the_reservation_of_a_killed_one(begin: Callable[..., Search]) -> None:
    """Then the search ends, and can be resumed."""
    search = begin(workers=2, most=1)
    search.rescue._groups_due = 1e9
    trial = search.run("a")
    for _ in range(4):
        search.die(trial, again=True, crash=STARVED)
        assert search.run_state.failure is None
        assert search.said[-1] == "00000: its workers found no place in the cluster; it waits for room."
        search.watchdog._now += 200
    search.die(trial, again=False, crash=STARVED)
    assert isinstance(search.run_state.failure, SearchError)
    assert "but they have found none in 10 min" in str(search.run_state.failure)
    assert {status for _, _, status in search.rows} == {"interrupted"}
    assert search.searcher.suggest("b") == "FINISHED", "to None, Tune would ask again for ten minutes"


def test_tune_is_started_anew_when_it_leaves_free_resources_unused(begin: Callable[..., Search]) -> None:
    search = begin()
    search.suggest("a")
    search.has_room = True
    search.pass_by(120)
    assert search.run_state.restart_reason == ""
    search.pass_by(10)
    assert "although there is room for one" in search.run_state.restart_reason
    assert search.run_state.is_over
    assert search.run_state.failure is None


def test_a_search_without_room_ends_with_what_it_needs(begin: Callable[..., Search]) -> None:
    search = begin()
    search.suggest("a")
    search.pass_by(600)
    assert not search.run_state.is_over
    search.pass_by(10)
    assert "it needs 1 times 1 CPUs, and there are 0 CPUs free" in str(search.run_state.failure)


def test_while_another_trial_runs_one_may_wait_for_its_place(begin: Callable[..., Search]) -> None:
    search = begin()
    running = search.run("a")
    search.suggest("b")
    for _ in range(200):
        search.pass_by(10)
        search.tell(running, reported(100, 2.0))
    assert not search.run_state.is_over
    assert search.killed == []


def test_groups_that_nobody_uses_are_freed(begin: Callable[..., Search], monkeypatch: pytest.MonkeyPatch) -> None:
    search = begin(workers=2)
    removed: list[str] = []
    monkeypatch.setattr(hang_recovery, "_groups_of_this_job", lambda: (["used", "left"], {"used", None}))
    monkeypatch.setattr(hang_recovery, "_remove_group", removed.append)
    search.suggest("a")
    search.pass_by(90)
    assert removed == []
    search.pass_by(30)
    assert removed == ["left"]
    assert "are free again" in search.said[0]


def test_a_group_in_use_now_and_then_is_not_leaked() -> None:
    groups = LeakedPlacementGroups(60)
    assert groups.leaked(["a"], set(), 0) == []
    assert groups.leaked(["a"], {"a"}, 50) == []
    assert groups.leaked(["a"], set(), 100) == []
    assert groups.leaked(["a"], set(), 150) == []
    assert groups.leaked(["a"], set(), 161) == ["a"]
    assert groups.leaked([], set(), 200) == []


def test_tune_is_asked_for_no_trial_when_all_configurations_are_tried(begin: Callable[..., Search]) -> None:
    """Also while the last ones run; a crash of one of them is still tried again."""
    search = begin(most=3, vary={"model.layers": IntDistribution(2, 3)})
    first, second = search.run("a"), search.run("b")
    assert search.searcher.suggest("c") == TuneSearcher.FINISHED
    assert search.source.is_exhausted
    search.die(first, again=True)
    for trial in (first, second):
        search.tell(trial, BEGUN)
        search.tell(trial, reported(400, 2.0))
        search.tell(trial, FINISHED)
        search.searcher.on_trial_complete(trial.trial_id)
    assert search.rows == [("00000", 1, "failed"), ("00000", 2, "finished"), ("00001", 1, "finished")]


@pytest.mark.parametrize("is_finite", [True, False])
def test_runs_of_tune_end_when_nothing_is_left_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_finite: bool
) -> None:
    """Not as a search that Tune cannot run; what Tune dropped is run first."""
    vary = {"model.layers": IntDistribution(2, 3)} if is_finite else {"optim.lr": FloatDistribution(0.01, 0.02)}
    space = toy_space(scheduler=None, vary=vary, budget=Budget(trials=9))
    search_state = toy_state(tmp_path, space)
    if not is_finite:
        monkeypatch.setattr(SearchSpace, "suggest", lambda *_: {"optim.lr": 0.02})
    runs_so_far = []

    def run_once(_runs: TuneRunner, round_: Round, source: Any) -> tuple[list[Any], str]:
        """Drop the first plan of the first run, and run every other one."""
        next_plans = (source.next_plan() for _ in range(round_.trials_left))
        plans = list(itertools.takewhile(lambda plan: plan is not None, next_plans))
        runs_so_far.append(len(plans))
        dropped = plans[:1] if len(runs_so_far) == 1 else []
        for plan in plans[len(dropped) :]:
            play(search_state, plan, BEGUN, reported(400, 2.0), FINISHED)
        return dropped, ""

    monkeypatch.setattr(TuneRunner, "run_once", run_once)
    runs = TuneRunner(
        Stop(space, search_state),
        search_state,
        SearchCallback(),
        CheckpointRetention(search_state),
        LauncherWatchdog(100),
    )
    runs.run(Round(search_state, space.resources, 1))
    assert sorted(search_state.ended) == ["00000", "00001"]
    assert runs_so_far == [2, 1]


def test_progress_is_shown_and_written_for_other_shells_from_time_to_time(begin: Callable[..., Search]) -> None:
    search = begin()
    trial = search.run("a")
    for images in (110, 120, 130):
        search.tell(trial, {"progress": {"images_seen": images, "images_per_second": 1.0, "train_bits_per_dim": 2.0}})
        search.pass_by(10)
    assert search.shown == 3
    assert search.state.store.progress()["00000"]["images_seen"] == 130, "the first is written after 15 s"
    assert search.run_state.failure is None
