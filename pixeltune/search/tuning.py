"""The seats in Ray Tune: the trial function, the searcher, the scheduler and the callback, each a thin adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pixeltune.search.ledger import Ledger, Plan
from pixeltune.search.suggest import Suggester
from pixeltune.search.trial import TrialTask, run_trial
from pixeltune.space import Resources

_TASK = "task"
_MESSAGE = "message"
"""Tasks and messages travel as JSON: Tune flattens, copies and prints whatever is not a plain value."""


def trainable(resources: Resources) -> Any:
    """What Tune runs for a trial of these resources."""
    if resources.workers == 1:
        return tune.with_resources(train_here, {"CPU": resources.cpus, "GPU": resources.gpus})
    # The trial's driver only waits: pinned to the head without a CPU, it cannot starve its own workers.
    return tune.with_resources(train_together, {"node:__internal_head__": 0.001})


def train_here(params: dict[str, Any]) -> None:
    """A trial of one worker: trains inside the (reused) Tune actor."""
    for message in run_trial(TrialTask(**json.loads(params[_TASK]))):
        tune.report({_MESSAGE: json.dumps(message)})


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
            failure_config=FailureConfig(max_failures=1, controller_failure_limit=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    ).fit()


def _train_worker(params: dict[str, Any]) -> None:
    from ray import train

    for message in run_trial(TrialTask(**json.loads(params[_TASK]))):
        train.report({_MESSAGE: json.dumps(message)})


class _StaysHere:
    """Tune pickles its parts to restore them some day; ours stay in the driver, for Parquet is what we restore from."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class SuggestSearcher(_StaysHere, Searcher):
    """Tune asks, the Suggester answers; a trial's end goes to the ledger, and from there to the study.

    plans: Tune's trial id → our plan, for the other two seats.
    """

    def __init__(self, suggester: Suggester, ledger: Ledger, *, scratch: str, on_change: Callable[[], None]) -> None:
        super().__init__()
        self._suggester = suggester
        self._ledger = ledger
        self._scratch = scratch
        self._on_change = on_change
        self.plans: dict[str, Plan] = {}
        self.crashes: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial as plain parameters."""
        plan = self._suggester.next_plan()
        self.plans[trial_id] = plan
        return {
            _TASK: json.dumps(asdict(self._ledger.task(plan))),
            "resources": asdict(self._ledger.resources),
            "run_name": f"{plan.trial}-{plan.attempt}",
            "scratch": self._scratch,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended for good, in whatever way; the ledger knows in which."""
        plan = self.plans[trial_id]
        if plan.trial in self._ledger.live:
            crash = self.crashes.get(trial_id, "the trial's process died") if error else None
            self._suggester.tell(self._ledger.finish(plan.trial, crash=crash))
            self._on_change()

    def set_search_properties(self, *_args: Any, **_kwargs: Any) -> bool:
        """The objectives are the space's; Tune need not know them."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its Parquet files."""


class LedgerScheduler(_StaysHere, FIFOScheduler):
    """First come, first served; the ledger reads each message and says when a trial stops."""

    def __init__(self, ledger: Ledger, searcher: SuggestSearcher, on_change: Callable[[], None]) -> None:
        super().__init__()
        self._ledger = ledger
        self._searcher = searcher
        self._on_change = on_change

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide at a message."""
        name = self._searcher.plans[trial.trial_id].trial
        stop = self._ledger.receive(name, json.loads(result[_MESSAGE])) is not None
        self._on_change()
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep the crash's words; Tune tells the searcher no more than that there was one."""
        self._searcher.crashes[trial.trial_id] = crash_of(trial)
        super().on_trial_error(tune_controller, trial)


class LedgerCallback(_StaysHere, tune.Callback):
    """Starts and retries, which only callbacks hear of."""

    def __init__(self, ledger: Ledger, searcher: SuggestSearcher) -> None:
        super().__init__()
        self._ledger = ledger
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The first start; a retry was entered when the crash was."""
        plan = self._searcher.plans[trial.trial_id]
        if plan.trial not in self._ledger.live:
            self._ledger.start(plan)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A crash that Tune answers with another attempt."""
        plan = self._searcher.plans[trial.trial_id]
        self._searcher.plans[trial.trial_id] = self._ledger.retry(plan.trial, crash_of(trial))


class LimitStopper(_StaysHere, tune.Stopper):
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
    """What is known of the exception or death that ended an attempt."""
    return str(trial.get_error() or "the trial's process died")
