"""The seats in Ray Tune: the trial function, the searcher, the scheduler and the callback, each a thin adapter."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pixeltune.errors import SearchError, StoreError
from pixeltune.search.attempts import Plan
from pixeltune.search.connect import HEAD
from pixeltune.search.ledger import NODE_DIED, Ledger
from pixeltune.search.plans import Planner
from pixeltune.search.trial import Message, TrialTask, run_trial
from pixeltune.search.watch import Watchdog
from pixeltune.space import Resources

_TASK = "task"
_MESSAGE = "message"
"""Tasks and messages travel as JSON: Tune flattens, copies and prints whatever is not a plain value."""
MOST_FAULTS = 1
"""Of a trial, after which Tune tries it again; what is no fault of its own does not count."""
_DIED = "the trial's process died"
_STARVED = "its workers found no place in the cluster"
_TAKEN = "its node was taken away (spot notice)"
_CUTS = {
    _STARVED: ("WorkerGroupStartupTimeoutError", "The worker group startup timed out"),
    _TAKEN: ("NodeTakenError", "PreemptionError", "the actor's node was preempted"),
    NODE_DIED: ("The actor died because its node has died",),
}
"""What is no fault of the trial, by the words in which Ray and Train tell it."""


def trainable(resources: Resources) -> Any:
    """What Tune runs for a trial of these resources."""
    if resources.workers == 1:
        return tune.with_resources(train_here, {"CPU": resources.cpus, "GPU": resources.gpus})
    # The trial's driver only waits: pinned to the head without a CPU, it cannot starve its own workers.
    return tune.with_resources(train_together, {HEAD: 0.001})


def train_here(params: dict[str, Any]) -> None:
    """A trial of one worker: trains inside the (reused) Tune actor."""
    from pixeltune.search.draining import NodeWatch

    with NodeWatch() as watch:
        watch.require_node()
        for message in run_trial(TrialTask(**json.loads(params[_TASK])), watch.is_taken):
            tune.report(_result_of(message))


def train_together(params: dict[str, Any]) -> None:
    """A trial of several workers: Ray Train forms the process group, rank 0's messages go to Tune."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = Resources(**params["resources"])
    per_worker: dict[str, float] = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    TorchTrainer(
        _train_worker,
        train_loop_config=params,
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=params["run_name"],
            storage_path=params["scratch"],
            callbacks=[TuneReportCallback()],
            failure_config=FailureConfig(  # Tune tries again, so that all attempts are known
                max_failures=0, controller_failure_limit=2, max_preemption_failures=0
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    ).fit()


def _train_worker(params: dict[str, Any]) -> None:
    from ray import train

    from pixeltune.search.draining import NodeWatch

    with NodeWatch() as watch:
        for message in run_trial(TrialTask(**json.loads(params[_TASK])), watch.is_taken):
            train.report(_result_of(message))


def _result_of(message: Message) -> dict[str, Any]:
    """A message as Tune's result; the numbers of a report stand beside it for the space's own callbacks."""
    return message.get("report", {}) | {_MESSAGE: json.dumps(message)}


class StaysHere:
    """Tune pickles its parts to restore them some day; ours stay in the driver, for Parquet is what we restore from."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


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
        return {_TASK: json.dumps(asdict(self.ledger.task(plan))), "run_name": f"{plan.trial}-{plan.attempt}"}

    def end(self, trial_id: str, *, crash: str | None) -> None:
        """A trial ended for good, in whatever way; the ledger knows in which."""
        self.open.discard(trial_id)
        self.watchdog.forget(trial_id)
        plan = self.plans.pop(trial_id)
        if crash is not None and plan.trial not in self.ledger.live:
            self.ledger.start(plan)  # Its process died before it began.
        if plan.trial in self.ledger.live:
            cut = "" if crash is None else self.cut_of(plan.trial, crash)
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


class SuggestSearcher(StaysHere, Searcher):
    """Tune asks, the Suggester answers; a trial's end goes to the ledger, and from there to the study."""

    def __init__(self, seats: Seats, scratch: str) -> None:
        super().__init__()
        self._seats = seats
        self._scratch = scratch

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial as plain parameters; `settings` is there for other callbacks to show."""
        seats = self._seats
        if len(seats.open) >= seats.most and not seats.is_over:
            return None
        with seats.guarded():
            if seats.is_over:
                return self.FINISHED  # without a trial Tune would ask again for ten minutes
            plan = seats.planner.next_plan()
            seats.plans[trial_id] = plan
            seats.open.add(trial_id)
            return seats.attempt(plan) | {
                "settings": plan.suggestion,
                "resources": asdict(seats.ledger.resources),
                "scratch": self._scratch,
            }
        return self.FINISHED

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """We count them ourselves: of a trial that it drops before it begins, Tune tells nobody."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial finished, was stopped by the scheduler, or failed once too often."""
        with self._seats.guarded():
            self._seats.end(trial_id, crash=self._seats.crashes.get(trial_id, _DIED) if error else None)

    def set_search_properties(self, *_args: Any, **_kwargs: Any) -> bool:
        """The objectives are the space's; Tune need not know them."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""


class LedgerScheduler(StaysHere, FIFOScheduler):
    """First come, first served; the ledger reads each message and says when a trial stops."""

    def __init__(self, seats: Seats) -> None:
        super().__init__()
        self._seats = seats

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide at a message."""
        reason: str | None = None
        with self._seats.guarded():
            name = self._seats.plans[trial.trial_id].trial
            message = json.loads(result[_MESSAGE])
            self._seats.watchdog.hear(trial.trial_id, message)
            self._seats.nodeless_since = None
            reason = self._seats.ledger.receive(name, message)
            if "end" in message:
                trial.max_failures = 0  # Should its process die now, there is nothing to try again.
            self._seats.on_change()
        return str(TrialScheduler.CONTINUE if reason is None else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep the crash's words; Tune tells the searcher no more than that there was one."""
        self._seats.crashes[trial.trial_id] = self._seats.take_crash(trial)


class LedgerCallback(StaysHere, tune.Callback):
    """Starts and retries, which only callbacks hear of."""

    def __init__(self, seats: Seats) -> None:
        super().__init__()
        self._seats = seats

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The first start; a retry was entered when the crash was."""
        with self._seats.guarded():
            plan = self._seats.plans[trial.trial_id]
            self._seats.watchdog.begin(trial.trial_id)
            if plan.trial not in self._seats.ledger.live:
                self._seats.ledger.start(plan)
                self._seats.on_change()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A crash that Tune answers with another attempt."""
        with self._seats.guarded():
            crash = self._seats.crashes.pop(trial.trial_id, None) or self._seats.take_crash(trial)
            _require_store(crash)
            self._seats.retry(trial.trial_id, crash)
            trial.max_failures = trial.num_failures + self._seats.tries_left(trial.trial_id)
            trial.config.update(self._seats.attempt(self._seats.plans[trial.trial_id]))  # Tune would repeat the first

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune keeps all its trials to the end, with 80 kB each of what nobody will ask for."""
        kept = (trial.metric_analysis, trial.metric_n_steps, trial.last_result, trial.config, trial.evaluated_params)
        for what in kept:
            what.clear()
        trial.set_experiment_tag("")  # holds the configuration once more
        trial.last_result["ended"] = True  # of an empty one Tune prints a line, whatever its verbosity


class LimitStopper(StaysHere, tune.Stopper):
    """Ends the search when `due` says so; single trials are the scheduler's affair."""

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never by trial."""
        return False

    def stop_all(self) -> bool:
        """Whether the whole search should end now."""
        return self._due()


def directory_of(trial: Any) -> str:
    """A short folder name; Tune's own would hold the whole configuration."""
    return str(trial.trial_id)


def crash_of(trial: Any) -> str:
    """What is known of the exception or death that ended the newest attempt.

    Tune appends it to a file of the driver's; its `get_error` reads a copy that is not there yet.
    """
    try:
        text = Path(trial.error_file or "").read_text(encoding="utf-8")
    except OSError:
        return _DIED
    newest = re.split(r"^Failure # \d+ \(occurred at .*\)\n", text, flags=re.MULTILINE)[-1]
    return re.sub(r"\x1b\[\d+m", "", newest).strip() or _DIED


def _require_store(crash: str) -> None:
    """Where a trial could not write its checkpoint, the next ones could not either: the search stops and can resume."""
    for line in crash.splitlines():
        _, found, reason = line.partition(f"{StoreError.__name__}: ")
        if found:
            raise StoreError(reason)
