"""Trials that train nothing: what is left is the search itself, to be measured and to be killed.

A no-op trial reports, keeps a checkpoint and goes on from it as `pixeltune.search.trial.run_trial` does, in
milliseconds. `drive` runs a search of them in this process, without Ray, through the same ledger, suggester and store;
`python benchmarks/noop.py --search FILE …` is launch.py with them in the seats of Tune.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.attempts import Plan
from pixeltune.search.keep import WeightKeeper
from pixeltune.search.ledger import Ledger
from pixeltune.search.scheduler import judge_of
from pixeltune.search.suggest import Suggester
from pixeltune.search.trial import Message, TrialTask, state_file, weights_file, writing_to
from pixeltune.space import Asha, Budget, SearchSpace

PAUSE = "PIXELTUNE_NOOP_SECONDS"
"""Environment variable: seconds between a trial's reports."""


def messages(task: TrialTask) -> Iterator[Message]:
    """A trial without training. Its value falls with images, and is lowest near a learning rate of 0.01."""
    config, location = TrialConfig.build(task.config), state_file(task.checkpoint)
    reports = json.loads(files.read_whole(location)) if files.exists(location) else []
    yield {"facts": {"config_key": config.key(), "num_parameters": 1, "data_checksum": "noop"}, "resumed": reports}
    every = config.train.report_every or config.train.batch_size
    for images in range(len(reports) * every + every, config.train.images + 1, every):
        if PAUSE in os.environ:
            time.sleep(float(os.environ[PAUSE]))
        value = 2 + abs(math.log10(config.optim.lr / 0.01)) + 100 / images
        reports.append(report_of(config, images, value))
        with writing_to(task.checkpoint):
            files.write_whole(weights_file(task.checkpoint), b"weights")
            files.write_whole(location, json.dumps(reports).encode())
        yield {"report": reports[-1], "facts": {"peak_memory_bytes": 1}}
    yield {"end": "finished", "reason": None, "facts": {"sample_images_per_second": 1.0, "sample_batch_size": 16}}


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


def drive(space: SearchSpace, folder: str, *, at_once: int = 2) -> Ledger:
    """Run or go on with the search in `folder`, taking one message of each running trial in turn."""
    store = SearchStore(folder, "noop")
    with store.lock():
        store.open(SearchManifest.of(space, "noop"))
        ledger = Ledger(space, store, resources=space.resources, judge=judge_of(space))
        suggester, keeper = Suggester(space, ledger), WeightKeeper(ledger)
        running: dict[str, Iterator[Message]] = {}
        while len(ledger.ended) < space.budget.trials:
            while len(running) < min(at_once, space.budget.trials - len(ledger.ended)):
                plan = suggester.next_plan()
                running[plan.trial] = _started(ledger, plan)
            for trial, told in list(running.items()):
                message = next(told, None)
                if message is None or ledger.receive(trial, message) is not None:
                    del running[trial]
                    ledger.finish(trial)
                    keeper.tidy()
        keeper.tidy_all()
    return ledger


def _started(ledger: Ledger, plan: Plan) -> Iterator[Message]:
    ledger.start(plan)
    return messages(ledger.task(plan))


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

    task = TrialTask(**json.loads(params["task"]))
    for message in messages(task):
        tune.report(message.get("report", {}) | {"message": json.dumps(message)})


if __name__ == "__main__":
    from pixeltune.cli.search import launch
    from pixeltune.search.connect import set_environment

    set_environment(None)  # before Ray is imported, as ever
    from pixeltune.search import tuning

    tuning.train_here = train_here
    sys.exit(launch())
