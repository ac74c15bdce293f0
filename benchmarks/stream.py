"""Training on images that do not fit in memory: the whole way from a file to gradients, under a memory limit.

    uv run benchmarks/stream.py --gigabytes 6 --limit 3        # needs root and Linux control groups (v1 or v2)

A generated set of 64×64×3 images is prepared (decoded, checksummed, split) in a process whose memory is limited, page
cache included. Another such process trains two equal networks, one on the whole set and one on a hundredth of it, which
stays resident: `--steps` steps of the one, then of the other, A B A B. The first steps of each turn are not timed, for
what was announced to the disk before was read meanwhile. Seconds are those in which the process computed or waited for
the disk: what it waited for a processor that others used is taken off (/proc/self/schedstat), so run it with
OMP_NUM_THREADS=1. Anonymous memory is what the process itself holds; pages of the file come and go.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pixeltune.config import TrialConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIDE, BATCH = 64, 32
IMAGE_BYTES = 3 * SIDE * SIDE
_GROUPS = (  # where groups lie, and the file that limits one
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "channels": 16, "split": 4},
    "gated": {"layers": 6, "channels": 48, "split": 2},
}
"""One that computes next to nothing, and one that computes."""


def main() -> None:
    """Print a table row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of images")
    parser.add_argument("--limit", type=float, default=3.0, help="gigabytes of memory")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--steps", type=int, default=24, help="timed, of each turn, 32 images each")
    parser.add_argument("--pairs", type=int, default=15, help="turns of each")
    parser.add_argument("--folder", help="where the images are put for the while [a temporary one]")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        told = json.loads(options.child)
        print(json.dumps(_prepare(**told) if "pairs" not in told else _train(**told)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, memory_group(options.limit) as group:
        path = Path(folder) / "images.npy"
        count = generate(path, options.gigabytes)
        os.environ["PIXELTUNE_CACHE"] = str(Path(folder) / "cache")
        prepared = _child(group, path=str(path))
        told = {"model": options.model, "steps": options.steps, "pairs": options.pairs}
        trained = _child(group, path=str(path), **told)
    ratios = sorted(a / b for a, b in zip(trained["whole"], trained["small"], strict=True))
    print(
        "| date | model | images | GB | limit GB | preparing s, anonymous MB at most | training: anonymous MB at "
        "first, at most, at the end | images/s whole | resident | ratio, half of the turns | loader alone, images/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {datetime.now(UTC):%Y-%m-%d} | {options.model} | {count:,} | {count * IMAGE_BYTES / 1e9:.1f} | "
        f"{options.limit:g} | {prepared['seconds']:.0f}, {prepared['most']:.0f} | "
        f"{trained['first']:.0f}, {trained['most']:.0f}, {trained['last']:.0f} | "
        f"{median(trained['whole']):.1f} | {median(trained['small']):.1f} | "
        f"{median(ratios):.3f}, {ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f} | "
        f"{trained['loaded']:,.0f} |"
    )


def generate(path: Path, gigabytes: float) -> int:
    """A file of noise, for its content does not matter; the number of images."""
    count, generator = int(gigabytes * 1e9 / IMAGE_BYTES), np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 3, SIDE, SIDE))
    for start in range(0, count, 4096):
        stop = min(start + 4096, count)
        images[start:stop] = generator.integers(256, size=(stop - start, 3, SIDE, SIDE), dtype=np.uint8)
    images.flush()
    return count


def _child(group: Path, **told: Any) -> dict[str, Any]:
    """One run in a process of its own, in the group from its start."""

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    words = [sys.executable, __file__, "--child", json.dumps(told)]
    done = subprocess.run(words, preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextlib.contextmanager
def memory_group(gigabytes: float) -> Iterator[Path]:
    """A control group of so much memory, for the while."""
    for parent, limit in _GROUPS:
        group = parent / f"pixeltune-stream-{os.getpid()}"
        if not parent.is_dir():
            continue
        try:
            group.mkdir()
            (group / limit).write_text(str(int(gigabytes * 1e9)), encoding="ascii")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    sys.exit("a control group must be made to limit memory, but none could be; run as root on Linux")


def _config(path: str, model: str, fraction: float) -> TrialConfig:
    from pixeltune.config import TrialConfig

    return TrialConfig.build(
        {
            "data": {"name": "array", "path": path, "num_valid": 256, "fraction": fraction},
            "model": {"family": "gated", "kernel_size": 3, **MODELS[model]},
            "likelihood": {"name": "logistic_mixture", "mixtures": 2},
            "train": {"images": BATCH * 10**6, "batch_size": BATCH, "precision": "float32"},
        }
    )


def _prepare(path: str) -> dict[str, Any]:
    """Decode both sets."""
    from pixeltune.data import load_data

    start, memory = seconds(), _Memory()
    for fraction in (1.0, 0.01):
        load_data(_config(path, "tiny", fraction).data)
    return {"seconds": seconds() - start, "most": memory.most()}


def _train(path: str, model: str, steps: int, pairs: int) -> dict[str, Any]:
    """Turn about."""
    from pixeltune.training.batches import IMAGES_AHEAD, Batches
    from pixeltune.training.loop import fit
    from pixeltune.training.running_sums import Tally

    memory = _Memory()
    trainings = [fit(_config(path, model, fraction), device="cpu") for fraction in (1.0, 0.01)]
    speeds: tuple[list[float], list[float]] = ([], [])
    anonymous = []
    for turn in range(pairs + 1):
        for training, own in zip(trainings, speeds, strict=True):
            tally = Tally(training.device)
            for step in range(2 * IMAGES_AHEAD // BATCH + steps):
                if step == 2 * IMAGES_AHEAD // BATCH:
                    start = seconds()
                training._train_step(tally)
            if turn:  # the first one warms up
                own.append(steps * BATCH / (seconds() - start))
        anonymous.append(memory.now())
    whole = trainings[0]
    loader = Batches(whole.data, whole.config.override({"seed": 1}), whole.workers, whole.device)
    start, count = seconds(), 256 * BATCH
    for place in range(0, count, BATCH):
        loader.part(place)
    return {
        "first": anonymous[0],
        "last": anonymous[-1],
        "most": memory.most(),
        "whole": speeds[0],
        "small": speeds[1],
        "loaded": count / (seconds() - start),
    }


def seconds() -> float:
    """Of this thread: computing, or waiting for anything but a processor."""
    waited = int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    return time.perf_counter() - waited


class _Memory:
    """Anonymous megabytes of this process, looked at ten times a second."""

    def __init__(self) -> None:
        import threading

        self._most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """At this moment."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000

    def most(self) -> float:
        """So far."""
        return max(self._most, self.now())

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self.now())
            time.sleep(0.1)


if __name__ == "__main__":
    main()
