"""Trials whose node is taken away or dies are recorded as interrupted, not failed, and a process ends with its parent.

Ray is faked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from pixeltune.search.run import SAVE_SECONDS
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import MOST_NODE_DEATHS, NODE_DIED, SearchState
from pixeltune.space import Budget
from pixeltune.tune.adapters import TuneCallback, TuneScheduler, TuneSearcher
from pixeltune.tune.run_state import MOST_FAULTS, TuneRunState
from pixeltune.tune.trainables import result_of
from pixeltune.tune.watchdog import Watchdog
from tests.support.toy_search import BEGUN, FINISHED, reported, toy_space, toy_state

TAKEN = "its node was taken away (spot notice)"
SAVED = "  File x, line 3\npixeltune.errors.NodePreemptedError: the machine under this trial is taken away: …"
PREEMPTED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n"
    "The actor died because its node has died. Node Id: 12ab\n\tthe actor's node was preempted: spot notice"
)
INFERRED = str(ActorDiedError(ActorDiedErrorContext(reason=ActorDiedErrorContext.NODE_DIED, actor_id=b"\x4a" * 16)))
"""What Ray says if the node of a notice is gone before the cluster's head knows that it is: no cause at all."""
OF_TRAIN = "ray.train.v2.api.exceptions.PreemptionError: Training was interrupted by node preemption (ranks [0])"
DIED = "The actor died because its node has died. Node Id: 12ab\n\tthe actor's node was terminated unexpectedly"
UNREACHABLE = (
    "The actor 40767075e0db is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed "
    "rpc_code: 14. The task may or may not have been executed on the actor."
)
"""What Ray says for as long as it does not know that the node has died, and so after most deaths without a notice."""
OWN_FAULT = "  File x, line 3\nValueError: a preempted idea, but my own"


class Tune:
    """Of Ray Tune what our adapters meet: one trial that is tried again while its failures are few enough."""

    def __init__(self, folder: Path, state: SearchState | None = None) -> None:
        space = toy_space(budget=Budget(trials=1), scheduler=None)
        self.state = state or toy_state(folder / "r", space)
        self.said: list[str] = []
        waiting = self.state.plans_to_resume()
        source = OptunaSearcher(space, self.state, waiting=waiting)
        self.run_state = TuneRunState(source, self.state, lambda: None, resources=space.resources, say=self.said.append)
        self.searcher, self.callback = TuneSearcher(self.run_state, ""), TuneCallback(self.run_state)
        self.scheduler = TuneScheduler(self.run_state)
        self.file = folder / "error.txt"
        self.trial: Any = SimpleNamespace(
            trial_id="a",
            config=self.searcher.suggest("a"),
            error_file=str(self.file),
            max_failures=MOST_FAULTS,
            num_failures=0,
        )
        self.is_over = False

    def begin(self) -> None:
        self.callback.on_trial_start(0, [], self.trial)
        self.require_no_failure()

    def fail(self, crash: str, *, is_counted: bool = True) -> None:
        """As Tune does it: count, and then try again or give up."""
        self.trial.num_failures += is_counted
        self.file.write_text(f"Failure # {self.trial.num_failures} (occurred at 2026)\n{crash}\n")
        self.scheduler.on_trial_error(None, self.trial)
        if self.trial.num_failures <= self.trial.max_failures:
            self.callback.on_trial_recover(0, [], self.trial)
        else:
            self.searcher.on_trial_complete("a", error=True)
            self.is_over = True
        self.require_no_failure()

    def require_no_failure(self) -> None:
        if self.run_state.failure is not None:
            raise self.run_state.failure

    @property
    def ends(self) -> list[tuple[int, str, str | None]]:
        return [(row["attempt"], row["status"], row["reason"]) for row in self.state.store.attempts()]


@pytest.mark.parametrize("crash", [SAVED, PREEMPTED, INFERRED, OF_TRAIN])
@pytest.mark.parametrize("is_counted", [True, False])
def test_a_trial_may_be_taken_away_any_number_of_times(tmp_path: Path, crash: str, *, is_counted: bool) -> None:
    """Tune counts what we raise, and not what it knows to be a preemption."""
    tune = Tune(tmp_path)
    for _ in range(12):
        tune.begin()
        tune.fail(crash, is_counted=is_counted)
        assert not tune.is_over
    tune.begin()
    for message in (BEGUN, reported(100, 2.0), FINISHED):
        tune.state.receive("00000", message)
    tune.searcher.on_trial_complete("a")
    assert tune.ends == [(number, "interrupted", TAKEN) for number in range(1, 13)] + [(13, "finished", None)]
    assert all(row["traceback"] is None for row in tune.state.store.attempts())
    assert tune.said == [f"00000: {TAKEN}; it goes on elsewhere."] * 12


def test_a_warning_of_a_trial_is_printed_with_its_name(tmp_path: Path) -> None:
    """As of a checkpoint that is damaged: what a trial's process prints itself is not shown."""
    tune = Tune(tmp_path)
    tune.begin()
    for message in (BEGUN | {"warning": "starts from scratch"}, reported(100, 2.0)):
        tune.scheduler.on_trial_result(None, tune.trial, result_of(message))
    tune.require_no_failure()
    assert tune.said == ["00000 starts from scratch"]


def test_what_it_has_seen_is_kept_across_nodes(tmp_path: Path) -> None:
    tune = Tune(tmp_path)
    tune.begin()
    for message in (BEGUN, reported(100, 2.0)):
        tune.state.receive("00000", message)
    tune.fail(SAVED)
    tune.begin()
    resumed = [reported(100, 2.0)["report"]]
    for message in (BEGUN | {"resumed": resumed}, reported(200, 1.5), FINISHED):
        tune.state.receive("00000", message)
    tune.searcher.on_trial_complete("a")
    points = [(point["attempt"], point["images_seen"]) for point in tune.state.store.curve("00000")]
    assert points == [(1, 100), (2, 200)]


def test_own_faults_count_between_preemptions(tmp_path: Path) -> None:
    """One more try, as ever: neither more by preemptions, nor fewer."""
    tune = Tune(tmp_path)
    for crash in (SAVED, SAVED, OWN_FAULT):
        tune.begin()
        tune.fail(crash)
    assert not tune.is_over
    tune.begin()
    tune.fail(OWN_FAULT)
    assert tune.is_over
    assert [status for _, status, _ in tune.ends] == ["interrupted", "interrupted", "failed", "failed"]
    assert "00000" in tune.state.ended


def test_taken_away_after_a_fault_of_its_own_it_is_resumed_all_the_same(tmp_path: Path) -> None:
    """Tune has given it up; the same launch begins it in its next run of Tune."""
    tune = Tune(tmp_path)
    for crash in (OWN_FAULT, SAVED):
        tune.begin()
        tune.fail(crash)
    assert tune.is_over
    assert tune.ends[-1] == (2, "interrupted", TAKEN)
    assert tune.state.ended == {}
    assert [plan.attempt for plan in tune.state.plans_to_resume()] == [3]


@pytest.mark.parametrize("crash", [PREEMPTED, INFERRED])
def test_a_process_that_dies_before_it_began_on_a_node_that_goes(tmp_path: Path, crash: str) -> None:
    """Tune gives up what has not begun."""
    tune = Tune(tmp_path)
    tune.file.write_text(f"Failure # 1 (occurred at 2026)\n{crash}\n")
    tune.scheduler.on_trial_error(None, tune.trial)
    tune.searcher.on_trial_complete("a", error=True)
    tune.require_no_failure()
    assert tune.ends == [(1, "interrupted", TAKEN)]
    assert len(tune.state.plans_to_resume()) == 1


@pytest.mark.parametrize("died", [DIED, UNREACHABLE])
def test_a_trial_that_kills_its_nodes_does_not_do_so_for_ever(tmp_path: Path, died: str) -> None:
    """Without a notice it may be the trial: taking all memory of a host, for instance. Later launches know of it."""
    tune = Tune(tmp_path)
    for _ in range(MOST_NODE_DEATHS - 1):
        tune.begin()
        tune.fail(died)
    second = Tune(tmp_path, toy_state(tmp_path / "r", tune.state.space))
    for _ in range(3):
        assert not second.is_over
        second.begin()
        second.fail(died)
    assert second.is_over
    ends = [(reason == NODE_DIED, status) for _, status, reason in second.ends]
    assert ends[0] == (True, "interrupted")
    assert [status for _, status in ends].count("failed") == 2
    assert sum(is_node for is_node, _ in ends) == MOST_NODE_DEATHS
    assert "00000" in second.state.ended


# --- Launches that end ------------------------------------------------------------------------------------------------


class Ending:
    """A search with two open trials, which are asked to end; `seconds` passes by hand."""

    def __init__(self, folder: Path) -> None:
        space = toy_space(budget=Budget(trials=4), scheduler=None)
        self.state = toy_state(folder / "r", space)
        self.asked = 0
        self.seconds = 0.0
        watchdog = Watchdog(space.patience, clock=lambda: self.seconds)
        self.run_state = TuneRunState(
            OptunaSearcher(space, self.state),
            self.state,
            lambda: None,
            resources=space.resources,
            ask_to_end=self._ask,
            concurrent=2,
            watchdog=watchdog,
        )
        for trial_id in ("a", "b"):
            assert self.run_state.open_next(trial_id) is not None
            self.run_state.begin(trial_id)

    def _ask(self) -> None:
        self.asked += 1

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.seconds += 0.1
            self.run_state.look()


def test_a_launch_that_ends_waits_for_the_trials_that_save_their_state(tmp_path: Path) -> None:
    """One that has not begun has nothing to save, and no other trial is begun."""
    search = Ending(tmp_path)
    search.run_state.receive("a", BEGUN)
    assert not search.run_state.may_end()
    search.wait(SAVE_SECONDS - 1)
    assert not search.run_state.may_end()
    assert search.asked == 1
    search.run_state.receive("a", {"end": "interrupted", "reason": "stopped before its end"})
    assert search.run_state.may_end()
    search.run_state.end("a", has_crashed=False)
    assert search.run_state.open_next("c") is None
    assert not search.run_state.is_full
    search.run_state.finish_interrupted()
    ends = [(row["status"], row["reason"]) for row in search.state.store.attempts()]
    assert ends == [("interrupted", "stopped before its end")] * 2
    assert [plan.trial for plan in search.state.plans_to_resume()] == ["00000", "00001"]


def test_a_launch_that_ends_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A trial may be in a long step, or its process may hang."""
    search = Ending(tmp_path)
    for trial_id in ("a", "b"):
        search.run_state.receive(trial_id, BEGUN)
    assert not search.run_state.may_end()
    search.wait(SAVE_SECONDS + 1)
    assert search.run_state.may_end()
    search.run_state.finish_interrupted()
    assert [row["status"] for row in search.state.store.attempts()] == ["interrupted"] * 2


def test_a_launch_whose_trials_have_not_begun_ends_at_once(tmp_path: Path) -> None:
    search = Ending(tmp_path)
    assert search.run_state.may_end()
    assert search.asked == 0


# --- Processes whose parent is gone -----------------------------------------------------------------------------------

_CHILD = (
    "import time; from pixeltune.tune.preemption import end_with_parent; {0}print('up', flush=True); time.sleep(60)"
)
_PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


def _outlives(watch: str, seconds: float) -> bool:
    """Whether the child of a killed parent, for which nobody waits meanwhile, is there after so long."""
    command = [sys.executable, "-c", _PARENT, _CHILD.format(watch)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        os.kill(parent.pid, signal.SIGKILL)
        end = time.monotonic() + seconds
        while (alive := _is_alive(child)) and time.monotonic() < end:
            time.sleep(0.05)
        assert Path(f"/proc/{parent.pid}").exists(), "as long as nobody has waited for it"
        if alive:
            os.kill(child, signal.SIGKILL)
        return alive
    finally:
        parent.communicate()


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_it_ends_with_a_parent_for_which_nobody_waits() -> None:
    assert not _outlives("end_with_parent(); end_with_parent(); ", 30)
    assert _outlives("", 1), "the test can fail"
