"""Small real trainings on digits: their configurations, their reports as numbers, and one of two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixeltune.config import TrialConfig
from pixeltune.training.epoch_report import EpochReport

GOLDEN = Path(__file__).parents[1] / "training" / "golden.json"
CLOCKS = ("train_seconds", "eval_seconds", "compile_seconds", "images_per_second")

GOLDEN_CONFIGS = {
    "gated categorical": {},
    "gated mixture dropout ema": {
        "likelihood__name": "logistic_mixture",
        "likelihood__mixtures": 3,
        "model__dropout": 0.3,
        "optim__ema": 0.9,
        "optim__schedule": "cosine",
        "optim__warmup": 0.2,
        "optim__clip": 20.0,
    },
    "gated dynamic bernoulli": {
        "data__binarise": "dynamic",
        "likelihood__name": "bernoulli",
        "optim__schedule": "exponential",
        "optim__decay": 0.9,
    },
    "pixelcnn residual": {"model__family": "pixelcnn", "model__head_channels": 16},
    "pixelcnn simple batch norm": {
        "model__family": "pixelcnn",
        "model__variant": "simple",
        "model__batch_norm": True,
        "model__head_channels": 0,
        "optim__weight_decay": 0.01,
    },
    "pixelvae warm-up label map": {
        "model__family": "pixelvae",
        "model__latent_conditioning": "map",
        "model__conditioning": "bias",
        "model__kl_warmup": 4,
        "model__free_nats": 0.05,
        "optim__ema": 0.9,
    },
    "pixelcnnpp mixture dropout ema": {
        "model__family": "pixelcnnpp",
        "model__layers": 1,
        "model__dropout": 0.5,
        "likelihood__name": "logistic_mixture",
        "likelihood__mixtures": 3,
        "optim__ema": 0.9,
    },
    "gated split": {"model__split": 2},
    "gated flip": {"data__flip": True},
    "pixelcnnpp split mixture": {
        "model__family": "pixelcnnpp",
        "model__layers": 1,
        "model__split": 2,
        "likelihood__name": "logistic_mixture",
        "likelihood__mixtures": 3,
    },
    "gated label bias and dropout": {"model__conditioning": "bias", "model__label_dropout": 0.3},
    "pixelcnn label map": {"model__family": "pixelcnn", "model__head_channels": 0, "model__conditioning": "map"},
    "pixelcnnpp label map": {
        "model__family": "pixelcnnpp",
        "model__layers": 1,
        "model__dropout": 0.0,
        "model__conditioning": "map",
    },
}


def tiny(**changes: Any) -> TrialConfig:
    """A few steps of a small gated network on digits; keys with `__` for the dot."""
    config = TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 2, "channels": 8, "kernel_size": 3},
            "likelihood": {"name": "categorical"},
            "optim": {"lr": 5e-3},
            "train": {"images": 192, "batch_size": 32, "report_every": 96, "eval_batch_size": 64},
        }
    )
    return config.override({key.replace("__", "."): value for key, value in changes.items()})


def numbers(report: EpochReport) -> dict[str, Any]:
    """A report without what the machine's speed decides."""
    return {name: value for name, value in asdict(report).items() if name not in CLOCKS}


_WORKER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import torch
import torch.distributed as dist
from pixeltune.config import TrialConfig
from pixeltune.errors import DivergedError, PausedError
from pixeltune.training.checkpoint import TrainState
from pixeltune.training.loop import fit
from pixeltune.training.workers import process_group

def train(config, out, fault):
    training = fit(config)
    first = []
    if fault == "pause":
        training._pause = lambda: dist.get_rank() == 1 and training.step > 3
        try:
            list(training)
        except PausedError:
            assert training.step == 16, "when they ask each other"
        if dist.get_rank() == 0:
            training.state.save(out + "state")
        dist.barrier()
        state = TrainState.load(out + "state")
        training = fit(config, state=state)
        first = [asdict(report) for report in state.reports]
    if fault == "nan" and dist.get_rank() == 1:
        training.model.network.register_forward_hook(lambda module, args, theta: theta * float("nan"))
    try:
        reports = first + [asdict(report) for report in training]
    except DivergedError as error:
        reports = str(error)
    weights = {name: float(tensor.double().sum()) for name, tensor in training.model.state_dict().items()}
    return {"reports": reports, "weights": weights}

torch.set_num_threads(1)
with process_group() as workers:
    ended = train(TrialConfig.build(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3])
ended["threads"] = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
Path(sys.argv[2] + str(workers.rank)).write_text(json.dumps(ended), encoding="utf-8")
"""


def two_processes(config: Any, folder: Path, fault: str = "none") -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WORKER, config.model_dump_json(), str(folder / "out"), fault]
    workers = [subprocess.Popen(command, env=base | {"RANK": str(rank)}) for rank in range(2)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    return [json.loads((folder / f"out{rank}").read_text(encoding="utf-8")) for rank in range(2)]
