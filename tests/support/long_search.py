"""Rows and curves of a search of any length, with every column that a search on a GPU writes. Seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pixeltune.config import TrialConfig
from pixeltune.results.store import trial_name

BASE = TrialConfig.build(
    {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "logistic_mixture"}}
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(trials: int, reports: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Rows and curves as a search leaves them: half of the trials pruned, some diverged."""
    config = BASE.flat()
    chance = random.Random(0)
    for number in range(trials):
        curve = [_report(chance, BEGAN + timedelta(minutes=number, seconds=place), place) for place in range(reports)]
        status = chance.choice(["finished", "pruned", "pruned", "diverged"])
        last = {name: value for name, value in curve[-1].items() if name not in ("reported_at", "lr")}
        yield (
            {
                **config,
                "model.layers": chance.randrange(2, 20),
                "optim.lr": 10 ** chance.uniform(-4, -2),
                **last,
                "trial": trial_name(number),
                "attempt": 1,
                "number": number,
                "config_key": f"{chance.randrange(16**12):012x}",
                "status": status,
                "reason": None if status == "finished" else f"below the median at {1000 * chance.randrange(1, 9)}",
                "started_at": BEGAN + timedelta(minutes=number),
                "finished_at": BEGAN + timedelta(minutes=number, seconds=50),
                "num_parameters": chance.randrange(10**6),
                "network_calls": 64,
                "is_bound": False,
                "device": "cuda",
                "workers": 1,
                "cpus_per_worker": 4,
                "gpus_per_worker": 1.0,
                "data_checksum": "0123456789abcdef",
                "levels": 17,
                "num_classes": 10,
                "evaluated_split": "valid",
                "pixeltune_version": "0.1.0",
                "python_version": "3.12.1",
                "torch_version": "2.10.0",
                "hostname": f"node{chance.randrange(8)}",
                "gpu_name": "NVIDIA H200",
            },
            curve,
        )


def _report(chance: random.Random, when: datetime, place: int) -> dict[str, object]:
    value = 2 + chance.random()
    numbers = ("train_bits_per_dim", "valid_bits_per_dim", "valid_bits_per_dim_raw", "valid_bits_per_dim_ema")
    nats = ("train_nats", "valid_nats", "valid_nats_raw", "valid_nats_ema")
    return {
        "reported_at": when,
        "images_seen": 1000 * (place + 1),
        "step": 20 * (place + 1),
        "epoch": (place + 1) / 2,
        "lr": 0.001,
        "grad_norm": chance.random(),
        "images_per_second": 900 + 100 * chance.random(),
        "gpu_seconds": 2.5 * (place + 1),
        "peak_memory_bytes": 10**9,
        **{name: value + chance.random() / 100 for name in numbers},
        **{name: 44 * value + chance.random() for name in nats},
        **dict.fromkeys(("train_seconds", "eval_seconds", "compile_seconds"), 1.5 * place),
    }
