"""How well training scales with workers: `uv run benchmarks/scaling.py [--workers 2]`, on CPUs, one thread a worker.

Weak scaling: each worker keeps its own batch, so that N of them do N times the work in the same time, were it not for
exchanging gradients and for sharing the machine. Three ways in turn, in the same processes: one worker alone while the
others sleep; all of them, each by itself, which is what the machine gives N processes; all together, as
DistributedDataParallel. `efficiency` is the median over rounds of alone / together, `of the machine's` that of each by
itself / together: the part that is ours. Prints a row for RESULTS.md, and what a step sends.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from sample import machine

from pixeltune.config import TrialConfig
from pixeltune.training.loop import Training, fit
from pixeltune.training.running_sums import Tally

LINKS = {
    "NVLink 4 (450 GB/s each way)": 450e9,
    "PCIe 5 ×16 (63 GB/s)": 63e9,
    "100 Gb/s network": 12.5e9,
    "10 Gb/s": 1.25e9,
}
"""Peaks of their specifications, in bytes a second."""
REFERENCE_WEIGHTS = 53_659_080
"""Of PixelCNN++ with 160 filters."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="images of each worker [8]")
    parser.add_argument("--layers", type=int, default=2, help="blocks a stage [2]")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=3, help="a round [3]")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder, "meeting"))
        workers = [
            context.Process(target=_work, args=(rank, options, meeting, results)) for rank in range(options.workers)
        ]
        for worker in workers:
            worker.start()
        seconds, parameters = results.get()
        for worker in workers:
            worker.join()
    _print(options, seconds, parameters)


def _work(rank: int, options: argparse.Namespace, meeting: str, results: Any) -> None:
    torch.set_num_threads(1)
    alone = _training(options, workers=1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.workers, timeout=timedelta(minutes=10)
    )
    together = _training(options, workers=options.workers)
    idle: Callable[[], None] = lambda: None  # noqa: E731
    ways = {
        "alone": _steps(alone, options.steps) if rank == 0 else idle,
        "each by itself": _steps(alone, options.steps),
        "together": _steps(together, options.steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + options.rounds):
        for name, way in ways.items():
            dist.barrier()
            start = time.perf_counter()
            way()
            dist.barrier()  # the slowest worker's time
            seconds[name].append((time.perf_counter() - start) / options.steps)
    if rank == 0:
        results.put(({name: taken[1:] for name, taken in seconds.items()}, together.model.num_parameters()))
    dist.destroy_process_group()


def _training(options: argparse.Namespace, workers: int) -> Training:
    config = TrialConfig.build(
        {
            "data": {"name": "train:noise"},
            "model": {"family": "pixelcnnpp", "layers": options.layers, "channels": options.channels, "dropout": 0.5},
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {"lr": 1e-4, "ema": 0.9995},
            "train": {
                "images": 10_000 * options.batch * workers,
                "batch_size": options.batch * workers,
                "precision": options.precision,  # not by a probe, which may choose otherwise for another worker
                "layout": "channels_last",
            },
        }
    )
    return fit(config, device="cpu")


def _steps(training: Training, count: int) -> Callable[[], None]:
    step = partial(training._train_step, Tally(training.device))

    def run() -> None:
        for _ in range(count):
            step()

    return run


def _print(options: argparse.Namespace, seconds: dict[str, list[float]], parameters: int) -> None:
    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds["together"], strict=True))

    steps = [f"{statistics.median(taken):.3f}" for taken in seconds.values()]
    print(
        "| date | machine | network | batch a worker | workers | alone s | each by itself s | together s | "
        "efficiency | of the machine's |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    network = f"PixelCNN++ {options.layers} × {options.channels}, {parameters / 1e6:.2f} M, {options.precision}"
    print(
        f"| {datetime.now(UTC):%Y-%m-%d} | {machine(torch.device('cpu'))} | {network} | {options.batch} | "
        f"{options.workers} | {' | '.join(steps)} | {ratio('alone'):.2f} | {ratio('each by itself'):.2f} |"
    )
    print("\n| weights | workers | MB a worker sends a step | " + " | ".join(f"ms at {link}" for link in LINKS) + " |")
    print(f"|---|---|---|{'---|' * len(LINKS)}")
    for weights, workers in ((parameters, options.workers), (REFERENCE_WEIGHTS, 8)):
        sent = bytes_sent(weights, workers)
        times = " | ".join(f"{1e3 * sent / speed:.1f}" for speed in LINKS.values())
        print(f"| {weights / 1e6:.2f} M | {workers} | {sent / 1e6:.0f} | {times} |")


def bytes_sent(weights: int, workers: int) -> float:
    """By each worker in a step, and as many received: a ring all-reduce of the gradients in float32."""
    return 2 * (workers - 1) / workers * 4 * weights


if __name__ == "__main__":
    main()
