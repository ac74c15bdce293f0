"""Two processes train as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixeltune.training.loop import fit

from .conftest import tiny
from .test_loop import numbers

_WORKER = """
import json, sys
from dataclasses import asdict
import torch
import torch.distributed as dist
from pixeltune.config import TrialConfig
from pixeltune.errors import DivergedError
from pixeltune.training.loop import fit

torch.set_num_threads(1)
dist.init_process_group("gloo")
training = fit(TrialConfig.build(json.loads(sys.argv[1])))
if sys.argv[3] == "nan" and dist.get_rank() == 1:
    training.model.network.register_forward_hook(lambda module, args, theta: theta * float("nan"))
try:
    reports = [asdict(report) for report in training]
except DivergedError as error:
    reports = str(error)
weights = {name: float(tensor.double().sum()) for name, tensor in training.model.state_dict().items()}
with open(sys.argv[2] + str(dist.get_rank()), "w") as file:
    json.dump({"reports": reports, "weights": weights}, file)
dist.destroy_process_group()
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optim__ema": 0.9, "optim__clip": 20.0},
        {"likelihood__name": "logistic_mixture", "data__levels": 4},
        # Training amplifies the rounding of float32, and more so the deeper the network and the larger its steps.
        {"model__family": "pixelcnnpp", "model__layers": 1, "likelihood__name": "logistic_mixture", "optim__lr": 1e-4},
        # The noise of the bound and the weight of its KL follow the place in the stream, not the worker.
        {"model__family": "pixelvae", "model__latent_dim": 4, "model__kl_warmup": 10, "optim__lr": 1e-3},
    ],
    ids=["categorical", "mixture", "initialised by data", "bound"],
)
def test_two_workers_give_the_losses_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny(train__images=640, train__report_every=160, **changes)
    alone = [numbers(report) for report in fit(config)]
    first, second = two_processes(config, tmp_path)
    assert first["weights"] == second["weights"]
    for ours, report in zip(alone, first["reports"], strict=True):
        for key in ("train_nats", "valid_nats", "train_bits_per_dim", "valid_bits_per_dim", "grad_norm"):
            assert report[key] == pytest.approx(ours[key], rel=1e-5), key
    for one, two in zip(first["reports"], second["reports"], strict=True):
        assert one["valid_nats"] == two["valid_nats"]
        assert one["train_nats"] == two["train_nats"]


@pytest.mark.slow
def test_all_workers_stop_together_when_one_diverges(tmp_path: Path) -> None:
    first, second = two_processes(tiny(), tmp_path, fault="nan")
    assert "step 0" in first["reports"]
    assert "step 0" in second["reports"]
