"""A search of any size that nobody ran: every outcome, several machines, retries, and strings that try to break a page.

Its numbers follow a simple law of the keys with noise, so that figures look like those of searches. Seeded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore, trial_name
from pixeltune.space import Asha, SearchSpace
from tests.support.results import make_store

HOSTILE = "</script><script>window.broken = true</script><b>&amp;\u2028'\"`${0}"
"""Ends a script, begins another, and is text."""

BEGAN = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
IMAGES = 3_200_000

_OUTCOMES = {
    "finished": 0.42,
    "pruned": 0.40,
    "diverged": 0.06,
    "oom": 0.04,
    "failed": 0.03,
    "interrupted": 0.02,
    "rejected": 0.02,
    "running": 0.01,
}
_REASONS = {
    "diverged": "loss nan at step {n}",
    "oom": "predicted peak 8{n} MB is above the 24,000 MB of the device",
    "failed": "RuntimeError: worker {n} lost " + HOSTILE,
    "interrupted": "node 10.0.0.{n} was lost",
    "rejected": "pixel (3, {n}) sees the future",
}
_BASELINE = 6.9
_SLOTS = 4
_HOSTS = 8


def space_of(objectives: Sequence[str] = ("valid_bits_per_dim",), **changes: Any) -> SearchSpace:
    """A search of CIFAR-10 with a choice, a key that only some trials have, and logarithmic keys."""
    base = TrialConfig.build(
        {
            "data": {"name": "cifar10"},
            "model": {"family": "gated", "layers": 12, "channels": 96, "colour_order": "likelihood"},
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "train": {"images": IMAGES, "batch_size": 64, "report_every": IMAGES // 20},
        }
    )
    vary = {
        "likelihood.name": CategoricalDistribution(["categorical", "logistic_mixture"]),
        "likelihood.mixtures": IntDistribution(3, 20, log=True),
        "model.layers": IntDistribution(6, 20),
        "model.channels": IntDistribution(32, 256, step=32),
        "model.dropout": FloatDistribution(0.0, 0.6),
        "optim.lr": FloatDistribution(2e-4, 3e-3, log=True),
    }
    scheduler = Asha((IMAGES // 10, IMAGES // 5), reduction=3) if len(objectives) == 1 else None
    return SearchSpace(
        **({"base": base, "vary": vary, "objectives": tuple(objectives), "scheduler": scheduler} | changes)
    )


def write_results(
    storage: str,
    name: str,
    *,
    trials: int,
    reports: int = 20,
    seed: int = 0,
    statuses: Sequence[str] = (),
    **space: Any,
) -> SearchStore:
    """Write it. statuses: of the first trials, in place of random ones. space: changes of `space_of`."""
    rng, searched = random.Random(seed), space_of(**space)
    store = make_store(storage, name, searched, baseline_bits_per_dim=_BASELINE)
    store.write_launch({"started_at": BEGAN.isoformat(), "budget": {"trials": trials}, "resources": {"gpus": 0.5}})
    free = [[BEGAN] * _SLOTS for _ in range(_HOSTS)]
    for number in range(trials):
        drawn = statuses[number] if number < len(statuses) else rng.choices([*_OUTCOMES], [*_OUTCOMES.values()])[0]
        host = min(range(_HOSTS), key=lambda index: min(free[index]))
        slot = min(range(_SLOTS), key=lambda index: free[host][index])
        free[host][slot] = _write_trial(
            store, searched, number, drawn, reports, rng, free[host][slot], f"gpu-{host}.lab"
        )
    return store


def _write_trial(
    store: SearchStore,
    space: SearchSpace,
    number: int,
    status: str,
    reports: int,
    rng: random.Random,
    start: datetime,
    host: str,
) -> datetime:
    """Its attempts, the second after a lost node, and its curve; when it ended."""
    keys = _draw(space, rng)
    config = space.configure(keys) if number else space.base
    flat = config.flat()
    seconds = 900 * flat["model.layers"] / 12 * (flat["model.channels"] / 96) ** 1.2
    done = {"finished": reports, "running": reports // 2, "pruned": rng.choice([reports // 10, reports // 5]) or 1}
    seen = done.get(status, rng.randrange(reports))
    curve = [_report(step, reports, flat, rng, start, seconds) for step in range(1, seen + 1)]
    end = start + timedelta(seconds=30 + seconds * seen / reports)
    attempt = 1
    if rng.random() < 0.05:
        lost = start + timedelta(seconds=20)
        store.write_trial(_row(number, 1, "interrupted", flat, [], start, lost, host, rng))
        attempt, start = 2, lost
    for report in curve:
        report["attempt"] = attempt
    row = _row(number, attempt, status, flat, curve, start, None if status == "running" else end, host, rng)
    store.write_trial(row)
    if curve:
        store.write_curve(trial_name(number), attempt, curve)
    return end


def _draw(space: SearchSpace, rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, distribution in space.vary.items():
        if key == "likelihood.mixtures" and values.get("likelihood.name") == "categorical":
            continue
        if isinstance(distribution, CategoricalDistribution):
            values[key] = rng.choice(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            step = distribution.step
            values[key] = distribution.low + step * rng.randint(0, (distribution.high - distribution.low) // step)
        elif isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            share = rng.random()
            values[key] = low * (high / low) ** share if distribution.log else low + (high - low) * share
    return values


def _report(
    step: int, reports: int, flat: dict[str, Any], rng: random.Random, start: datetime, seconds: float
) -> dict[str, Any]:
    share = step / reports
    floor = 2.95 + 0.25 * abs(math.log(flat["optim.lr"] / 8e-4)) ** 1.5 + 3 / flat["model.layers"]
    floor += 10 / flat["model.channels"] + 0.3 * (flat["model.dropout"] - 0.3) ** 2
    bits = floor + 0.9 * share**-0.5 * 0.4 + rng.gauss(0, 0.01)
    return {
        "reported_at": start + timedelta(seconds=30 + seconds * share),
        "images_seen": IMAGES * step // reports,
        "valid_bits_per_dim": bits,
        "valid_nats": bits * math.log(2) * 3072,
        "train_bits_per_dim": bits + 0.02,
        "train_nats": (bits + 0.02) * math.log(2) * 3072,
        "images_per_second": IMAGES / seconds,
    }


def _row(
    number: int,
    attempt: int,
    status: str,
    flat: dict[str, Any],
    curve: list[dict[str, Any]],
    start: datetime,
    end: datetime | None,
    host: str,
    rng: random.Random,
) -> dict[str, Any]:
    best = min(curve, key=lambda report: report["valid_bits_per_dim"], default=None)
    told = best if status not in ("running", "failed", "oom", "rejected") else None
    parameters = flat["model.layers"] * flat["model.channels"] ** 2 * 20
    speed = 4000 / parameters**0.5 * rng.uniform(0.9, 1.1) * 100
    reason = _REASONS.get(status, "").replace("{n}", str(rng.randrange(100))) or None
    return {
        "trial": trial_name(number),
        "attempt": attempt,
        "number": number,
        "status": status,
        "reason": reason,
        "traceback": f'Traceback (most recent call last):\n  File "x.py"\n{HOSTILE}' if status == "failed" else None,
        "started_at": start,
        "finished_at": end,
        **flat,
        "images_seen": curve[-1]["images_seen"] if curve and status != "running" else None,
        "best_images_seen": best["images_seen"] if told and best else None,
        "valid_bits_per_dim": told["valid_bits_per_dim"] if told else None,
        "valid_nats": told["valid_nats"] if told else None,
        "baseline_bits_per_dim": _BASELINE if told else None,
        "train_seconds": (end - start).total_seconds() * 0.9 if end else None,
        "eval_seconds": 10.0 if end else None,
        "gpu_seconds": (end - start).total_seconds() * 0.5 if end else 0.0,
        "num_parameters": parameters,
        "network_calls": 1024,
        "sample_images_per_second": speed if status == "finished" else None,
        "peak_memory_bytes": parameters * 400,
        "is_bound": False,
        "workers": 1,
        "gpus_per_worker": 0.5,
        "evaluated_split": "valid",
        "data_version": "original",
        "data_checksum": "0123456789abcdef",
        "image_channels": 3,
        "image_height": 32,
        "image_width": 32,
        "levels": 256,
        "num_train": 45000,
        "num_valid": 5000,
        "pixeltune_version": "0.1.0",
        "torch_version": "2.15.0",
        "hostname": host,
        "gpu_name": "NVIDIA <H200> & co",
        "git_commit": "0" * 40,
    }
