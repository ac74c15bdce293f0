"""Trials that train nothing: what is left is the search itself, to be measured and to be killed.

A no-op trial reports, keeps a checkpoint and goes on from it as `pixeltune.search.trial.run_trial` does, in
milliseconds. `drive` runs a search of them in this process, without Ray, through the same state, searcher and store;
`python tests/support/noop.py --search FILE …` is launch.py with them in the adapters of Tune and of Train.

`instruct` tells the trials of a storage how slow they are, and which of them meets with what.
"""

from __future__ import annotations

import ctypes
import json
import math
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.messages import STOPPED, Message, TrialTask
from pixeltune.search.pruners import pruner_for
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.search.trial import state_file, weights_file, writing_to
from pixeltune.space import Asha, Budget, SearchSpace


@dataclass(frozen=True)
class Orders:
    """What trials are told. seconds: between reports.

    trial: the one that meets with `what` in its first `attempts` attempts, once it has seen so many images. `what`:
    "raise", "hang", or a status with which it ends.
    """

    seconds: float = 0.0
    trial: str = ""
    what: str = ""
    images: int = 0
    attempts: int = 1


def instruct(storage: str | Path, orders: Orders) -> None:
    """A file beside the searches, for it reaches processes on any node."""
    Path(storage).mkdir(parents=True, exist_ok=True)
    Path(storage, _ORDERS).write_text(json.dumps(asdict(orders)), encoding="utf-8")


_ORDERS = "noop.json"


def value_of(lr: float, images: int) -> float:
    """bits/dim: falls with images, and is lowest near a learning rate of 0.01."""
    return 2 + abs(math.log10(lr / 0.01)) + 100 / images


def messages(task: TrialTask, *, is_first: bool = True) -> Iterator[Message]:
    """A trial without training. is_first: of its workers, the one that keeps checkpoints."""
    orders = _orders(task)
    config, location = TrialConfig.build(task.config), state_file(task.checkpoint)
    reports = json.loads(files.read_whole(location)) if files.exists(location) else []
    every = config.train.report_every or config.train.batch_size
    is_meant = orders.trial == task.trial and task.attempt <= orders.attempts
    if is_meant and len(reports) * every >= orders.images:
        yield _meet(orders.what)
        return
    facts = {"config_key": config.key(), "num_parameters": 1, "hostname": socket.gethostname()}
    yield {"facts": facts, "resumed": reports}
    for images in range(len(reports) * every + every, config.train.images + 1, every):
        time.sleep(orders.seconds)
        reports.append(report_of(config, images, value_of(config.optim.lr, images)))
        if is_first:
            with writing_to(task.checkpoint):
                files.write_whole(weights_file(task.checkpoint), b"weights")
                files.write_whole(location, json.dumps(reports).encode())
        yield {"report": reports[-1], "facts": {"peak_memory_bytes": 1}}
        if is_meant and images >= orders.images:
            yield _meet(orders.what)
            return
    yield {"end": "finished", "reason": None, "facts": {"sample_images_per_second": 1.0, "sample_batch_size": 16}}


def _orders(task: TrialTask) -> Orders:
    storage = files.local_path(task.checkpoint).parents[2]
    location = storage / _ORDERS
    return Orders(**json.loads(location.read_text(encoding="utf-8"))) if location.exists() else Orders()


def _meet(what: str) -> Message:
    if what == "raise":
        raise RuntimeError("as it was told")
    if what == "hang":
        ctypes.PyDLL(None).sleep(100_000)  # in C, the interpreter's lock held: no other thread of it runs
    return {"end": what, "reason": "as it was told"}


def report_of(config: TrialConfig, images: int, value: float) -> dict[str, Any]:
    """An EpochReport as a dictionary, with this bits/dim in each of its columns."""
    bits = ("train_bits_per_dim", "valid_bits_per_dim", "valid_bits_per_dim_raw", "valid_bits_per_dim_ema")
    nats = ("train_nats", "valid_nats", "valid_nats_raw", "valid_nats_ema")
    seconds = ("train_seconds", "eval_seconds", "compile_seconds")
    return {
        "images_seen": images,
        "step": images // config.train.batch_size,
        "epoch": images / 1000,
        "lr": config.optim.lr,
        "grad_norm": 1.0,
        "images_per_second": 1000.0,
        **dict.fromkeys(bits, value),
        **dict.fromkeys(nats, 44 * value),
        **dict.fromkeys(seconds, images / 1000),
    }


def drive(space: SearchSpace, folder: str, *, at_once: int = 2) -> SearchState:
    """Run or go on with the search in `folder`, taking one message of each running trial in turn."""
    store = SearchStore(folder, "noop")
    with store.lock():
        store.open(SearchManifest.of(space, "noop"))
        state = SearchState(space, store, pruner=pruner_for(space))
        state.write_lost_decisions()
        searcher, retention = OptunaSearcher(space, state), CheckpointRetention(state)
        running: dict[str, Iterator[Message]] = {}
        while len(state.ended) < space.budget.trials:
            while len(running) < min(at_once, space.budget.trials - len(state.ended)):
                plan = searcher.next_plan()
                if plan is None:
                    break
                running[plan.trial] = _started(state, plan)
            if not running:
                break
            for trial, told in list(running.items()):
                message = next(told, None)
                if message is None or state.receive(trial, message) is not None:
                    del running[trial]
                    state.finish(trial)
                    retention.tidy()
        retention.tidy_all()
    return state


def _started(state: SearchState, plan: TrialPlan) -> Iterator[Message]:
    state.start(plan, state.space.resources)
    return messages(plan.to_task(state.space, state.store, state.space.resources))


def noop_space(*, trials: int = 8, images: int = 800, every: int = 100, stop: bool = True) -> SearchSpace:
    """A small search of no-op trials."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return SearchSpace(
        title="trials that train nothing",
        base=TrialConfig.build(
            {
                "data": {"name": "digits", "num_valid": 100},
                "model": {"family": "gated", "layers": 2, "channels": 8, "kernel_size": 3},
                "likelihood": {"name": "categorical"},
                "optim": {"lr": 0.01, "ema": 0.9},
                "train": {"images": images, "batch_size": 50, "report_every": every},
            }
        ),
        vary={"model.channels": IntDistribution(4, 8), "optim.lr": FloatDistribution(0.001, 0.1, log=True)},
        budget=Budget(trials=trials),
        scheduler=Asha((2 * every, 4 * every)) if stop else None,
        keep=2,
    )


def train_here(params: dict[str, Any]) -> None:
    """In Tune's seat of a trial of one worker. Nothing of this module's is looked up where it runs."""
    from ray import tune

    from pixeltune.tune.preemption import PreemptionMonitor

    task = TrialTask(**json.loads(params["task"]))
    with PreemptionMonitor() as watch:
        watch.require_node()
        for message in messages(task):
            tune.report(message.get("report", {}) | {"message": json.dumps(message)})
            watch.require_node()
            if watch.is_asked() and "end" not in message:
                tune.report({"message": json.dumps({"end": "interrupted", "reason": STOPPED})})
                return


def train_together(params: dict[str, Any]) -> None:
    """In Tune's seat of a trial of several workers: the real one, in whose process Train is given another worker."""
    from pixeltune.tune import trainables

    trainables._train_worker = train_worker
    trainables.train_together(params)


def train_worker(params: dict[str, Any]) -> None:
    """In Train's seat. Workers wait for each other before each report, as those that train do in each step."""
    import torch
    from ray import train

    rank = train.get_context().get_world_rank()
    for message in messages(TrialTask(**json.loads(params["task"])), is_first=rank == 0):
        torch.distributed.barrier()
        train.report(message.get("report", {}) | {"message": json.dumps(message)})


if __name__ == "__main__":
    from pixeltune.cli.search import launch
    from pixeltune.tune.ray_session import set_environment

    set_environment(None)  # before Ray is imported, as ever
    from pixeltune.tune import trainables

    trainables.train_here, trainables.train_together = train_here, train_together
    sys.exit(launch())
