"""What a search costs beside its trials: `uv run benchmarks/search_overhead.py [--search digits_quick]`.

Runs a search of one-worker trials, then the same trials (configuration, seed, stopping point) with bare `fit` in as
many processes as ran trials at once, one thread each, audit included, no Ray, no checkpoints. Compares the time from
the first trial's start to the last one's end, and prints a row for RESULTS.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixeltune.machine import cpu_name

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--search", default="digits_quick")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as storage:
        launched = datetime.now(UTC)
        settings = [word for setting in options.settings for word in ("--set", setting)]
        command = [sys.executable, "launch.py", "--search", options.search, "--storage", storage, *settings]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        total = (datetime.now(UTC) - launched).total_seconds()
        rows = _rows(storage, options.search)
    startup = (min(row["started_at"] for row in rows) - launched).total_seconds()
    searched = (max(row["finished_at"] for row in rows) - min(row["started_at"] for row in rows)).total_seconds()
    bare = bare_seconds(rows, options.processes)
    print("| date | machine | search | trials | start-up s | trials s | bare s | ratio | whole command s |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {launched:%Y-%m-%d} | {_machine()} | {options.search} | {len(rows)} | {startup:.1f} | {searched:.1f} | "
        f"{bare:.1f} | {searched / bare:.2f} | {total:.1f} |"
    )


def bare_seconds(rows: list[dict[str, Any]], processes: int) -> float:
    """Wall time of the same trials in bare processes that take them in the order in which they started."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ready = context.Barrier(processes + 1)
    workers = [context.Process(target=_work, args=(queue, ready)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for row in sorted(rows, key=lambda row: row["started_at"]):
        queue.put((_tree(row), row["images_seen"]))
    for _ in workers:
        queue.put(None)
    ready.wait()  # imports are start-up, and reported apart
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def _work(queue: Any, ready: Any) -> None:
    import torch

    from pixeltune.config import TrialConfig
    from pixeltune.training.loop import fit

    torch.set_num_threads(1)
    ready.wait()
    while (task := queue.get()) is not None:
        tree, images = task
        for report in fit(TrialConfig.build(tree)):
            if report.images_seen >= images:
                break


def _tree(row: dict[str, Any]) -> dict[str, Any]:
    """The nested configuration that a row's columns hold; null columns are keys of other families, or None."""
    from pixeltune.config import FAMILIES, LIKELIHOODS, TrialConfig

    kinds = {
        "model": FAMILIES[row["model.family"]],
        "likelihood": LIKELIHOODS[row["likelihood.name"]],
        **{name: TrialConfig.model_fields[name].annotation for name in ("data", "optim", "train")},
    }
    sections = {
        section: {name: row[f"{section}.{name}"] for name in kind.model_fields} for section, kind in kinds.items()
    }
    return sections | {"seed": row["seed"]}


def _rows(storage: str, search: str) -> list[dict[str, Any]]:
    from pixeltune.results.store import SearchStore

    return SearchStore(storage, search).trials()


def _machine() -> str:
    return f"{os.cpu_count()} × {cpu_name()}"


if __name__ == "__main__":
    main()
