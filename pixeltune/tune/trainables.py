"""The function that Ray Tune runs for a trial: the training itself, or a driver of several Ray Train workers."""

from __future__ import annotations

import json
from typing import Any

from ray import tune

from pixeltune.search.messages import Message
from pixeltune.search.trial import TrialTask, run_trial
from pixeltune.space import Resources
from pixeltune.tune.ray_session import HEAD

TASK = "task"
MESSAGE = "message"
"""Tasks and messages are sent as JSON: Tune flattens, copies and prints anything but plain values."""


def trainable(resources: Resources) -> Any:
    """Return the function that Tune runs for a trial with these resources."""
    if resources.workers == 1:
        return tune.with_resources(train_here, {"CPU": resources.cpus, "GPU": resources.gpus})
    # The trial's driver only waits: pinned to the head without a CPU, it cannot starve its own workers.
    return tune.with_resources(train_together, {HEAD: 0.001})


def train_here(params: dict[str, Any]) -> None:
    """Run a trial of one worker inside the (reused) Tune actor."""
    from pixeltune.tune.preemption import PreemptionMonitor

    with PreemptionMonitor() as watch:
        watch.require_node()
        for message in run_trial(TrialTask(**json.loads(params[TASK])), watch.is_taken):
            tune.report(result_of(message))


def train_together(params: dict[str, Any]) -> None:
    """Run a trial of several workers: Ray Train forms the process group, rank 0's messages go to Tune."""
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

    from pixeltune.tune.preemption import PreemptionMonitor

    with PreemptionMonitor() as watch:
        for message in run_trial(TrialTask(**json.loads(params[TASK])), watch.is_taken):
            train.report(result_of(message))


def result_of(message: Message) -> dict[str, Any]:
    """Return a message as Tune's result, with the numbers of a report next to it for the space's own callbacks."""
    sent = {MESSAGE: json.dumps(message)}
    return message["report"] | sent if "report" in message else sent
