"""What the seats in Ray Tune share: which trials are open, how each attempt ended, and what follows from that."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixeltune.errors import SearchError
from pixeltune.search.attempts import Plan
from pixeltune.search.ledger import NODE_DIED, Ledger
from pixeltune.search.plans import Planner
from pixeltune.search.trainables import TASK
from pixeltune.search.watch import Watchdog

MOST_FAULTS = 1
"""Of a trial, after which Tune tries it again; what is no fault of its own does not count."""
DIED = "the trial's process died"
_FAILED_RESET = re.compile(r"ray::\w+\.reset\(\) \(pid=")
"""In the crash of a trial whose process had run another one and could not be prepared for this one."""
_FAILED_CREATION = re.compile(r"ray::\w+\.__init__\(\) \(pid=")
"""In the crash of a trial whose process could not be made ready; what the trial does comes later."""
_UNPREPARED = "its process could not be prepared"
_MOST_UNPREPARED = 3
"""Of one trial; then it counts as its own fault, so that nothing is tried forever."""
_STARVED = "its workers found no place in the cluster"
_TAKEN = "its node was taken away (spot notice)"
_CUTS = {
    _STARVED: ("WorkerGroupStartupTimeoutError", "The worker group startup timed out"),
    _TAKEN: ("NodeTakenError", "PreemptionError", "the actor's node was preempted"),
    NODE_DIED: ("because its node has died", "The actor is temporarily unavailable"),
}
"""What is no fault of the trial, by the words in which Ray and Train tell it."""


class Seats:
    """What the searcher, the scheduler and the callback share.

    plans: Tune's trial id → our plan, until it ends. open: ids of those that have not ended. most: how many at once.
    on_change: told after each event; say: a line for the user. silences: why the watchdog killed a trial's process.
    could_hold: whether the nodes that are there could hold a trial, were they free; nodeless_since: on the watchdog's
        clock, when they first could not.
    lost: plans that Tune dropped before they began. stuck: why Tune must be started anew, or "".
    failure: the first exception in one of our hooks. Tune would log it, or count it as the trial's; so it is kept here,
        the search stops, and `run` raises it.
    """

    def __init__(
        self,
        planner: Planner,
        ledger: Ledger,
        on_change: Callable[[], None],
        *,
        most: int = 1,
        say: Callable[[str], None] = print,
        could_hold: Callable[[], bool] = lambda: True,
    ) -> None:
        self.planner = planner
        self.ledger = ledger
        self.on_change = on_change
        self.most = most
        self.say = say
        self.watchdog = Watchdog(ledger.space.patience)
        self.plans: dict[str, Plan] = {}
        self.open: set[str] = set()
        self.crashes: dict[str, str] = {}
        self.silences: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._unprepared: Counter[str] = Counter()
        self.lost: list[Plan] = []
        self.stuck = ""
        self.could_hold = could_hold
        self.nodeless_since: float | None = None
        self.failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether Tune should come to its end."""
        return self.failure is not None or bool(self.stuck)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run a hook's body; its exception goes no further than `failure`."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    def attempt(self, plan: Plan) -> dict[str, str]:
        """Of a trial's parameters, those that are another attempt's own."""
        return {TASK: json.dumps(asdict(self.ledger.task(plan))), "run_name": f"{plan.trial}-{plan.attempt}"}

    def end(self, trial_id: str, *, crash: str | None) -> None:
        """A trial ended for good, in whatever way; the ledger knows in which."""
        plan = self.plans[trial_id]
        cut = "" if crash is None else self.cut_of(plan.trial, crash)
        has_begun = plan.trial in self.ledger.live
        if crash is not None and (_FAILED_RESET.search(crash) or not (has_begun or cut)):
            self.drop(trial_id)  # Tune does not try a trial again that has not begun.
            return
        self.open.discard(trial_id)
        self.watchdog.forget(trial_id)
        del self.plans[trial_id]
        if crash is not None and not has_begun:
            self.ledger.start(plan)
        if plan.trial in self.ledger.live:
            self.ledger.finish(plan.trial, crash=None if cut else crash, **({"cut": cut} if cut else {}))
            self._say_cut(plan, cut)
            self.on_change()

    def retry(self, trial_id: str, crash: str) -> None:
        """A trial's attempt ended, and Tune begins another."""
        plan = self.plans[trial_id]
        self.watchdog.wait(trial_id)
        if plan.trial not in self.ledger.live:
            self.ledger.start(plan)  # Its process died before it began.
        cut = self.cut_of(plan.trial, crash)
        self.plans[trial_id] = self.ledger.retry(plan.trial, None if cut else crash, cut=cut)
        self._faults[trial_id] += not cut
        self._say_cut(plan, cut)

    def tries_left(self, trial_id: str) -> int:
        """How often a trial may still fail by its own fault and be tried again; Tune counts every end alike."""
        return max(0, MOST_FAULTS - self._faults[trial_id])

    def cut_of(self, trial: str, crash: str) -> str:
        """Why an attempt ended by no fault of the trial, or ""."""
        reason = next((reason for reason, words in _CUTS.items() if any(word in crash for word in words)), "")
        if not reason and _FAILED_CREATION.search(crash):
            self._unprepared[trial] += 1
            return _UNPREPARED if self._unprepared[trial] <= _MOST_UNPREPARED else ""
        return "" if reason == NODE_DIED and not self.ledger.may_blame_node(trial) else reason

    def _say_cut(self, plan: Plan, cut: str) -> None:
        if cut == _STARVED:
            self.starve(plan)
        elif cut:
            self.say(f"{plan.trial}: {cut}; it goes on elsewhere.")

    def drop(self, trial_id: str) -> None:
        """Tune gave up a trial before it began; it is planned again when Tune has come to its end."""
        self.open.discard(trial_id)
        self.watchdog.forget(trial_id)
        plan = self.plans.pop(trial_id)
        if plan.trial in self.ledger.live:
            self.ledger.finish(plan.trial, cut="the process that should run it could not begin it")
        else:
            self.lost.append(plan)

    def starve(self, plan: Plan) -> None:
        """A trial's workers found no place: with fewer trials at a time the others will; a single one never would.

        Where no nodes are there that could hold them, some are still to come, and the trial goes on waiting.
        """
        if not self.could_hold():
            self._wait_for_nodes(plan)
        elif len(self.open - {trial_id for trial_id, other in self.plans.items() if other.trial == plan.trial}):
            self.most = max(1, self.most - 1)
            self.say(f"{plan.trial}: {_STARVED}; from now on {self.most} trials at a time.")
        else:
            raise SearchError(
                f"the cluster must have room for a trial, but the {self.ledger.resources.workers} workers of "
                f"{plan.trial} found none, and no other trial runs; see to its nodes, and give the same command"
            )

    def _wait_for_nodes(self, plan: Plan) -> None:
        """SearchError where they have not come in the time that a start may take."""
        now, minutes = self.watchdog.now, self.ledger.space.patience.start_minutes
        self.nodeless_since = now if self.nodeless_since is None else self.nodeless_since
        if now - self.nodeless_since > 60 * minutes:
            raise SearchError(
                f"nodes for the {self.ledger.resources.workers} workers of a trial must start within "
                f"patience.start_minutes, but none that could hold them have in {minutes:g} min; see to the cluster, "
                "or wait longer with --set patience.start_minutes=N, and give the same command"
            )
        self.say(f"{plan.trial}: {_STARVED}; it waits for nodes that are to start.")

    def take_crash(self, trial: Any) -> str:
        """What ended the newest attempt, in words."""
        return self.silences.pop(trial.trial_id, "") or crash_of(trial)


def crash_of(trial: Any) -> str:
    """What is known of the exception or death that ended the newest attempt.

    Tune appends it to a file of the driver's; its `get_error` reads a copy that is not there yet.
    """
    try:
        text = Path(trial.error_file or "").read_text(encoding="utf-8")
    except OSError:
        return DIED
    newest = re.split(r"^Failure # \d+ \(occurred at .*\)\n", text, flags=re.MULTILINE)[-1]
    return re.sub(r"\x1b\[\d+m", "", newest).strip() or DIED
