"""The state of one run of Ray Tune: which trials are open, how each attempt ended, and what to do next."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pixeltune.errors import SearchError, StoreError
from pixeltune.format import counted
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.messages import Message
from pixeltune.search.run import SAVE_SECONDS
from pixeltune.search.searcher import TrialSource
from pixeltune.search.state import NODE_DIED, SearchState
from pixeltune.space import Patience, Resources
from pixeltune.tune.trainables import TASK
from pixeltune.tune.watchdog import Watchdog

MOST_FAULTS = 1
"""Faults of a trial that Tune retries; interruptions that are not the trial's fault do not count."""
DIED = "the trial's process died"
_FAILED_RESET = re.compile(r"ray::\w+\.reset\(\) \(pid=")
"""In the crash of a trial whose process had run another one and could not be prepared for this one."""
_FAILED_CREATION = re.compile(r"ray::\w+\.__init__\(\) \(pid=")
"""In the crash of a trial whose process could not be made ready; what the trial does comes later."""
_MISSING_MODULE = re.compile(r"No module named '(\w+)((?:\.\w+)*)'")
_LOST_FOLDER = re.compile(r"FileNotFoundError: \[Errno 2\] No such file or directory$", re.MULTILINE)
"""Without the name of a file: the working directory of the process was removed, as by a node that joins on its disk."""
_UNPREPARED = "its process could not be prepared"
_MOST_UNPREPARED = 3
"""Of one trial; any further one counts as the trial's own fault, so that nothing is tried forever."""
_WRITE_PROGRESS_SECONDS = 15.0
"""Least seconds between two files that show the progress to other shells."""
_STARVED = "its workers found no place in the cluster"
_TAKEN = "its node was taken away (spot notice)"
_NO_CAUSE = "\tclass_name: \n\tactor_id: "
"""In the death of an actor whose cause Ray does not know: it infers from the notice that the node is gone."""
_INTERRUPTIONS = {
    _STARVED: ("WorkerGroupStartupTimeoutError", "The worker group startup timed out"),
    _TAKEN: ("NodePreemptedError", "PreemptionError", "the actor's node was preempted", _NO_CAUSE),
    NODE_DIED: ("because its node has died", "The actor is temporarily unavailable"),
}
"""Ends that are not the trial's fault, by the texts with which Ray and Train report them."""


class TuneRunState:
    """State shared by the searcher, the scheduler and the callbacks of one run of Ray Tune; only its methods change it.

    Tune would log an exception in one of our hooks, or count it as the trial's. `guarded` keeps the first one in
    `failure` instead, the run ends, and `TuneRunner.run_once` raises it.

    Args:
        source: Plans the trials.
        state: Records trials as they start, report and end.
        on_change: Called after each of these events.
        on_progress: Is called for news of a trial between two of its reports; they come every few seconds.
        resources: The resources of each trial.
        concurrent: How many trials are open at once.
        say: Prints a line for the user.
        could_hold: Returns whether the present nodes could hold a trial if they were free.
        ask_to_end: Asks the processes of all trials to save their state and end.
        watchdog: Finds trials that are silent for too long; None makes one with the space's patience.
    """

    def __init__(
        self,
        source: TrialSource,
        state: SearchState,
        on_change: Callable[[], None],
        *,
        resources: Resources,
        on_progress: Callable[[], None] = lambda: None,
        concurrent: int = 1,
        say: Callable[[str], None] = print,
        could_hold: Callable[[], bool] = lambda: True,
        ask_to_end: Callable[[], None] = lambda: None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.say = say
        self._source = source
        self._state = state
        self._on_change = on_change
        self._on_progress = on_progress
        self._resources = resources
        self._concurrent = concurrent
        self._could_hold = could_hold
        self._ask_to_end = ask_to_end
        self._watchdog = watchdog or Watchdog(state.space.patience)

        # By Tune's trial id: our plan, until the trial ends; and which of them Tune has not ended or given up.
        self._plans: dict[str, TrialPlan] = {}
        self._open: set[str] = set()
        # Why the newest attempt ended, why the watchdog killed its process, and how many ends were the trial's fault.
        self._crashes: dict[str, str] = {}
        self._kill_reasons: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._unprepared: Counter[str] = Counter()
        # What this run leaves behind.
        self._dropped: list[TrialPlan] = []
        self._restart_reason = ""
        self._failure: BaseException | None = None
        # Times on the watchdog's clock: when workers first found no place, when the trials were asked to end, and
        # when progress was written last.
        self._roomless_since: float | None = None
        self._ending_since: float | None = None
        self._progress_written_at = 0.0

    # --- What is known ------------------------------------------------------------------------------------------------

    @property
    def resources(self) -> Resources:
        """Return the resources of each trial."""
        return self._resources

    @property
    def patience(self) -> Patience:
        """Return how long trials may be silent or take to start."""
        return self._state.space.patience

    @property
    def concurrent(self) -> int:
        """Return how many trials are open at once; it decreases if their workers found no place."""
        return self._concurrent

    @property
    def dropped(self) -> Sequence[TrialPlan]:
        """Return the plans that Tune gave up before they began."""
        return self._dropped

    @property
    def restart_reason(self) -> str:
        """Return why Tune must be started again, or ""."""
        return self._restart_reason

    @property
    def failure(self) -> BaseException | None:
        """Return the first exception in one of our hooks."""
        return self._failure

    @property
    def is_over(self) -> bool:
        """Return whether Tune should end."""
        return self._failure is not None or bool(self._restart_reason)

    @property
    def is_full(self) -> bool:
        """Return whether another trial has to wait for one that is open."""
        return len(self._open) >= self._concurrent and not (self.is_over or self._is_ending)

    @property
    def _is_ending(self) -> bool:
        return self._ending_since is not None

    def is_open(self, trial_id: str) -> bool:
        """Return whether Tune has neither ended nor given up the trial."""
        return trial_id in self._open

    def tries_left(self, trial_id: str) -> int:
        """Return how often a trial may still fail by its own fault and be retried; Tune counts all ends alike."""
        return max(0, MOST_FAULTS - self._faults[trial_id])

    def attempt_name(self, trial_id: str) -> str:
        """Return a short name of the attempt that is planned or runs: the trial, and the attempt if not the first."""
        plan = self._plans[trial_id]
        return plan.trial if plan.attempt == 1 else f"{plan.trial}-{plan.attempt}"

    def attempt_parameters(self, trial_id: str) -> dict[str, str]:
        """Return the parameters that differ in a trial's next attempt."""
        plan = self._plans[trial_id]
        task = plan.to_task(self._state.space, self._state.store, self._resources)
        return {TASK: json.dumps(asdict(task)), "run_name": f"{plan.trial}-{plan.attempt}"}

    # --- What happens to the run --------------------------------------------------------------------------------------

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run a hook's body; keep its exception in `failure` and do not raise it."""
        try:
            yield
        except Exception as error:
            self._failure = self._failure or error

    def request_restart(self, reason: str) -> None:
        """End this run of Tune, so that another one can begin."""
        self._restart_reason = reason

    def may_end(self) -> bool:
        """Return whether Tune may end now that the search has to: no trial has steps that its state lacks.

        At first, ask the trials that train to save their state and end. They get `SAVE_SECONDS` for it.
        """
        if self._ending_since is None:
            self._ending_since = self._watchdog.now
            if self._unsaved():
                self._ask_to_end()
        return not self._unsaved() or self._watchdog.now - self._ending_since > SAVE_SECONDS

    def _unsaved(self) -> bool:
        """Return whether a trial trains; one that has not begun loses nothing."""
        return any(attempt.facts and attempt.end is None for attempt in self._state.running.values())

    def look(self) -> float:
        """Advance the watchdog's clock; return the seconds that were watched so far."""
        return self._watchdog.look()

    def finish_interrupted(self) -> None:
        """Record the end of the attempts that still run; Tune has ended."""
        for trial in list(self._state.running):
            with self.guarded():
                self._state.finish(trial)

    # --- What happens to a trial --------------------------------------------------------------------------------------

    def open_next(self, trial_id: str) -> TrialPlan | None:
        """Plan the next trial and open it under Tune's id; None if this run needs no more trials."""
        plan = None if self.is_over or self._is_ending else self._source.next_plan()
        if plan is not None:
            self._plans[trial_id] = plan
            self._open.add(trial_id)
        return plan

    def begin(self, trial_id: str) -> None:
        """Record that the process of an attempt starts; a retry was recorded with its crash."""
        plan = self._plans[trial_id]
        self._watchdog.begin(trial_id)
        if plan.trial not in self._state.running:
            self._state.start(plan, self._resources)
            self._on_change()

    def receive(self, trial_id: str, message: Message) -> str | None:
        """Record a trial's message; return the reason to stop the trial, if any."""
        trial = self._plans[trial_id].trial
        if "warning" in message:
            self.say(f"{trial} {message['warning']}")
        self._watchdog.hear(trial_id, message)
        self._roomless_since = None
        reason = self._state.receive(trial, message)
        if "progress" in message:
            self._show_progress()
        else:
            self._on_change()
        return reason

    def _show_progress(self) -> None:
        """Show a trial between two reports, here and from time to time to other shells; nothing else has changed."""
        self._on_progress()
        if self._watchdog.now - self._progress_written_at > _WRITE_PROGRESS_SECONDS:
            self._progress_written_at = self._watchdog.now
            self._state.write_progress()

    def kill_silent(self, trial_ids: Sequence[str]) -> list[str]:
        """Return which of these trials have been silent for too long; the caller ends their processes."""
        reasons = self._watchdog.silent()
        silent = [trial_id for trial_id in trial_ids if trial_id in reasons]
        for trial_id in silent:
            self.say(f"{self._plans[trial_id].trial}: {reasons[trial_id]}; its process is killed.")
            self._kill_reasons[trial_id] = reasons[trial_id]
            self._watchdog.begin(trial_id)
        return silent

    def crash(self, trial_id: str, text: str) -> None:
        """Keep why the newest attempt ended: the watchdog's reason, else Tune's `text`."""
        self._crashes[trial_id] = self._kill_reasons.pop(trial_id, "") or text

    def retry(self, trial_id: str, text: str) -> None:
        """End an attempt that Tune follows with another one.

        text: Tune's text of the crash, used if `crash` was not called.

        Raises:
            StoreError: The attempt could not write its checkpoint.
        """
        crash = self._crashes.pop(trial_id, None) or self._kill_reasons.pop(trial_id, "") or text
        _require_store(crash)
        plan = self._plans[trial_id]
        self._watchdog.wait(trial_id)
        if plan.trial not in self._state.running:
            self._state.start(plan, self._resources)  # Its process died before it began.
        interruption = self._interruption(plan.trial, crash)
        self._plans[trial_id] = self._state.retry(
            plan.trial, None if interruption else crash, interruption=interruption
        )
        self._faults[trial_id] += not interruption
        self._answer(plan, interruption)

    def end(self, trial_id: str, *, has_crashed: bool) -> None:
        """End a trial for good; the search state knows its status."""
        crash = self._crashes.get(trial_id, DIED) if has_crashed else None
        trial = self._plans[trial_id].trial
        has_begun = trial in self._state.running
        interruption = "" if crash is None else self._interruption(trial, crash)
        if crash is not None and (_FAILED_RESET.search(crash) or not (has_begun or interruption)):
            self.drop(trial_id)  # Tune does not try a trial again that has not begun.
            return
        plan = self._close(trial_id)
        if crash is not None and not has_begun:
            self._state.start(plan, self._resources)
        if trial in self._state.running:
            if interruption:
                self._state.finish(trial, interruption=interruption)
            else:
                self._state.finish(trial, crash=crash)
            self._answer(plan, interruption)
            self._on_change()

    def drop(self, trial_id: str) -> None:
        """Close a trial that Tune gave up before it began; it is planned again after this run of Tune."""
        plan = self._close(trial_id)
        if plan.trial in self._state.running:
            self._state.finish(plan.trial, interruption="the process that should run it could not begin it")
        else:
            self._dropped.append(plan)

    def _close(self, trial_id: str) -> TrialPlan:
        self._open.discard(trial_id)
        self._watchdog.forget(trial_id)
        return self._plans.pop(trial_id)

    def _interruption(self, trial: str, crash: str) -> str:
        """Return why an attempt ended if it was not the trial's fault, else ""."""
        reason = next((reason for reason, texts in _INTERRUPTIONS.items() if any(text in crash for text in texts)), "")
        if not reason and (_FAILED_CREATION.search(crash) or _LOST_FOLDER.search(crash) or _lacks_code(crash)):
            self._unprepared[trial] += 1
            return _UNPREPARED if self._unprepared[trial] <= _MOST_UNPREPARED else ""
        return "" if reason == NODE_DIED and not self._state.may_blame_node(trial) else reason

    # --- What follows from an interruption ----------------------------------------------------------------------------

    def _answer(self, plan: TrialPlan, interruption: str) -> None:
        if interruption == _STARVED:
            self._make_room(plan)
        elif interruption:
            self.say(f"{plan.trial}: {interruption}; it goes on elsewhere.")

    def _make_room(self, plan: TrialPlan) -> None:
        """Run fewer trials at once, so that the workers of others find a place.

        The trial continues to wait if no present nodes could hold them, because more are still to start, and if no
        other trial runs, because the reservation of a killed trial is freed after a while.

        Raises:
            SearchError: It has waited for as long as a start may take.
        """
        workers = f"the {self._resources.workers} workers of a trial"
        if not self._could_hold():
            self._wait(
                plan,
                "it waits for nodes that are to start",
                f"nodes for {workers} must start within patience.start_minutes, but none that could hold them have",
            )
        elif self._open - {trial_id for trial_id, other in self._plans.items() if other.trial == plan.trial}:
            self._concurrent = max(1, self._concurrent - 1)
            self.say(f"{plan.trial}: {_STARVED}; from now on {counted(self._concurrent, 'trial')} at a time.")
        else:
            self._wait(
                plan,
                "it waits for room",
                f"{workers} must find a place within patience.start_minutes, but they have found none",
            )

    def _wait(self, plan: TrialPlan, what: str, failure: str) -> None:
        """Continue to wait, or raise SearchError if the trial has found no place in the time that a start may take."""
        now, minutes = self._watchdog.now, self.patience.start_minutes
        self._roomless_since = now if self._roomless_since is None else self._roomless_since
        if now - self._roomless_since > 60 * minutes:
            raise SearchError(
                f"{failure} in {minutes:g} min; see to the cluster, or wait longer with "
                "--set patience.start_minutes=N, and give the same command"
            )
        self.say(f"{plan.trial}: {_STARVED}; {what}.")


def crash_of(trial: Any) -> str:
    """Return the known text of the exception or death that ended the newest attempt.

    Tune appends it to a file of the driver's; its `get_error` reads a copy that does not exist yet.
    """
    try:
        text = Path(trial.error_file or "").read_text(encoding="utf-8")
    except OSError:
        return DIED
    newest = re.split(r"^Failure # \d+ \(occurred at .*\)\n", text, flags=re.MULTILINE)[-1]
    return re.sub(r"\x1b\[\d+m", "", newest).strip() or DIED


def _lacks_code(crash: str) -> bool:
    """Return whether a process did not find a module that this one has.

    Its node may lack a package; and on a shared disk, a node that joins unpacks the job's code once more, and others
    miss it for a moment. Of code that is not pixeltune's only the top package is looked for, which runs none of it.
    """
    found = _MISSING_MODULE.search(crash)
    if found is None:
        return False
    top, rest = found.groups()
    try:
        return find_spec(top + rest if top == "pixeltune" else top) is not None
    except (ImportError, ValueError):  # its package does not exist either, or was made without an import
        return False


def _require_store(crash: str) -> None:
    """Raise a trial's StoreError here: if it could not write its checkpoint, the next ones could not either."""
    for line in crash.splitlines():
        _, found, reason = line.partition(f"{StoreError.__name__}: ")
        if found:
            raise StoreError(reason)
