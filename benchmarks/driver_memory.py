"""What a long search costs its driver: `uv run benchmarks/driver_memory.py [--trials 1000]`.

Launches a search of trials that train nothing (tests/support/noop.py), reads the resident memory of the launcher at
each hundred of them, and prints a row for RESULTS.md: memory at trial 100 and at the last, and trials a second between.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from sample import machine

from tests.support import noop

SEARCH = """
from dataclasses import replace
from tests.support.noop import noop_space

search = replace(noop_space(trials={trials}, images={images}, every=100, stop=False), keep=0)
"""
EVERY = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=4, help="of each trial [4]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        search = Path(folder, "noop_search.py")
        search.write_text(SEARCH.format(trials=options.trials, images=100 * options.reports), encoding="utf-8")
        command = [sys.executable, noop.__file__, "--search", str(search)]
        launch = subprocess.Popen([*command, "--storage", folder], stdout=subprocess.DEVNULL)
        trials = Path(folder, "noop_search", "trials")
        seen: dict[int, tuple[float, int]] = {}
        while launch.poll() is None:
            count = sum(1 for _ in trials.glob("*.parquet")) if trials.is_dir() else 0
            if count // EVERY * EVERY not in seen:
                seen[count // EVERY * EVERY] = time.monotonic(), _resident(launch.pid)
            time.sleep(0.2)
    if launch.returncode:
        sys.exit(launch.returncode)
    first, last = EVERY, max(seen)
    speed = (last - first) / (seen[last][0] - seen[first][0])
    growth = seen[last][1] / seen[first][1] - 1
    print("| date | machine | trials, reports each | MB at trial 100 | MB at the last hundred | growth | trials/s |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {datetime.now(UTC):%Y-%m-%d} | {machine(torch.device('cpu'))} | {options.trials}, {options.reports} | "
        f"{seen[first][1] / 1e6:.0f} | {seen[last][1] / 1e6:.0f} | {growth:.1%} | {speed:.2f} |"
    )
    print("MB at each hundred: " + ", ".join(f"{count}: {size / 1e6:.0f}" for count, (_, size) in seen.items()))


def _resident(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
