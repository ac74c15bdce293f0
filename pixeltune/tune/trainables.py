"""The function that Ray Tune runs for a trial: the training itself, or a driver of several Ray Train workers."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from ray import tune

from pixeltune.search.messages import Message, TrialTask
from pixeltune.search.trial import run_trial
from pixeltune.space import Resources
from pixeltune.tune.ray_session import HEAD

TASK = "task"
MESSAGE = "message"
"""Tasks and messages are sent as JSON: Tune flattens, copies and prints anything but plain values."""
_ADDRESS = "RAY_ADDRESS"
_POLL_SECONDS = 0.2
"""How long a trial of several workers waits for a message before it checks whether its training is over."""


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
        for message in run_trial(TrialTask(**json.loads(params[TASK])), watch.is_taken, watch.is_asked):
            tune.report(result_of(message))


def train_together(params: dict[str, Any]) -> None:
    """Run a trial of several workers: Ray Train forms the process group, rank 0's messages go to Tune.

    The messages pass through a queue of this trial, and all of them are reported before the trial ends. Ray's
    `TuneReportCallback` loses the last one, or hangs, if Tune asks for it later than Train has shut down.
    """
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Where this process runs: elsewhere the queue could end with a node that the trial does not need.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    _name_cluster()
    messages = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": here})
    training = _Training(params, messages)
    training.start()
    while True:
        is_over = not training.is_alive()  # checked first, so that all it sent is in the queue
        try:
            tune.report(messages.get(timeout=_POLL_SECONDS))
        except Empty:
            if is_over:
                break
    if training.failure is not None:
        raise training.failure


def _name_cluster() -> None:
    """Let the processes of Train ask this cluster for the state of actors, as Train's cleaner of placement groups does.

    Without an address they look for any Ray on the machine. Of two, they may ask the other one, take the training for
    ended, and end it.
    """
    from ray.train.v2._internal import constants

    from pixeltune.tune.ray_session import gcs_address

    os.environ[_ADDRESS] = gcs_address()
    constants.ENV_VARS_TO_PROPAGATE.add(_ADDRESS)


class _Training(threading.Thread):
    """A thread that runs Ray Train until its workers have ended. failure: the exception that it raised."""

    def __init__(self, params: dict[str, Any], messages: Any) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None
        self._trainer = _trainer(params, messages)

    def run(self) -> None:
        """Run the trainer."""
        try:
            self._trainer.fit()
        except BaseException as error:
            self.failure = error


def _trainer(params: dict[str, Any], messages: Any) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    class Forward(UserCallback):
        """Puts rank 0's messages into the queue; runs in Train's controller."""

        def after_report(self, *, metrics: list[dict[str, Any]], **_context: Any) -> None:
            messages.put(metrics[0])

    resources = Resources(**params["resources"])
    per_worker: dict[str, float] = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    return TorchTrainer(
        _train_worker,
        train_loop_config=params,
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=params["run_name"],
            storage_path=params["scratch"],
            callbacks=[Forward()],
            failure_config=FailureConfig(  # Tune tries again, so that all attempts are known
                max_failures=0, controller_failure_limit=2, max_preemption_failures=0
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _train_worker(params: dict[str, Any]) -> None:
    from ray import train

    from pixeltune.tune.preemption import PreemptionMonitor

    with PreemptionMonitor() as watch:
        for message in run_trial(TrialTask(**json.loads(params[TASK])), watch.is_taken, watch.is_asked):
            train.report(result_of(message))


def result_of(message: Message) -> dict[str, Any]:
    """Return a message as Tune's result, with the numbers of a report next to it for the space's own callbacks."""
    sent = {MESSAGE: json.dumps(message)}
    return message["report"] | sent if "report" in message else sent
