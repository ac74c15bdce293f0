"""Training on images that do not fit in memory: the whole way from a file to gradients, under a memory limit.

    uv run benchmarks/stream.py --gigabytes 6 --limit 3        # needs root and Linux control groups (v1 or v2)

A generated set of 64×64×3 images is prepared (decoded, checksummed, split) and trained on in a process whose memory is
limited, page cache included, and then the same number of steps on a hundredth of it, which stays resident. Both run
in turn, A B A B. Anonymous memory is what the process itself holds; pages of the mapped file come and go.
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
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIDE = 64
_BYTES = 3 * SIDE * SIDE
_GROUPS = (  # where groups lie, and the file that limits one
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


def main() -> None:
    """Print a table row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of images")
    parser.add_argument("--limit", type=float, default=3.0, help="gigabytes of memory")
    parser.add_argument("--steps", type=int, default=40, help="of each run, 32 images each")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", help="where the images are put for the while [a temporary one]")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_run(**json.loads(options.child))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, _memory_group(options.limit) as group:
        path = Path(folder) / "images.npy"
        count = _generate(path, options.gigabytes)
        os.environ["PIXELTUNE_CACHE"] = str(Path(folder) / "cache")
        prepared = _child(group, path, steps=0, fraction=1.0)
        whole, small = [], []
        for _ in range(options.pairs):
            whole.append(_child(group, path, steps=options.steps, fraction=1.0))
            small.append(_child(group, path, steps=options.steps, fraction=0.01))
    ratio = median(a["images_per_second"] / b["images_per_second"] for a, b in zip(whole, small, strict=True))
    last = whole[-1]
    print(
        "| date | images | GB | limit GB | preparing s, anonymous MB at most | training: anonymous MB at first, at "
        "most, at the end | images/s mapped | resident | ratio | loader alone, images/s mapped |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {datetime.now(UTC):%Y-%m-%d} | {count:,} | {count * _BYTES / 1e9:.1f} | {options.limit:g} | "
        f"{prepared['seconds']:.0f}, {prepared['most']:.0f} | "
        f"{last['first']:.0f}, {last['most']:.0f}, {last['last']:.0f} | "
        f"{median(row['images_per_second'] for row in whole):.1f} | "
        f"{median(row['images_per_second'] for row in small):.1f} | {ratio:.3f} | {last['loaded']:,.0f} |"
    )


def _generate(path: Path, gigabytes: float) -> int:
    """Noise, for its content does not matter; the number of images."""
    count, generator = int(gigabytes * 1e9 / _BYTES), np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 3, SIDE, SIDE))
    for start in range(0, count, 4096):
        stop = min(start + 4096, count)
        images[start:stop] = generator.integers(256, size=(stop - start, 3, SIDE, SIDE), dtype=np.uint8)
    images.flush()
    return count


def _child(group: Path, path: Path, **told: Any) -> dict[str, float]:
    """One run in a process of its own, in the group from its start."""

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    words = [sys.executable, __file__, "--child", json.dumps({"path": str(path), **told})]
    done = subprocess.run(words, preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextlib.contextmanager
def _memory_group(gigabytes: float) -> Iterator[Path]:
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


def _run(path: str, steps: int, fraction: float) -> dict[str, float]:
    """Prepare, and train for some steps."""
    from pixeltune.config import TrialConfig
    from pixeltune.data import load_data
    from pixeltune.training.loop import fit

    batch, reports = 32, 4
    images = max(1, steps // reports) * reports * batch
    tree = {
        "data": {"name": "array", "path": path, "num_valid": 256, "fraction": fraction},
        "model": {"family": "gated", "layers": 1, "channels": 16, "kernel_size": 3, "split": 4},
        "likelihood": {"name": "logistic_mixture", "mixtures": 2},
        "train": {
            "images": images,
            "batch_size": batch,
            "report_every": images // reports,
            "precision": "float32",
        },
    }
    config = TrialConfig.build(tree)
    start, memory = time.perf_counter(), _Memory()
    data = load_data(config.data)
    if not steps:
        return {"seconds": time.perf_counter() - start, "most": memory.most()}
    order = np.random.default_rng(1).permutation(len(data.train))[: 256 * batch]
    begun = time.perf_counter()
    for first in range(0, len(order), batch):
        data.train_batch(order[first : first + batch], np.zeros(batch, dtype=np.int64))
    loaded = len(order) / (time.perf_counter() - begun)
    anonymous, speeds = [], []
    for report in fit(config):
        anonymous.append(memory.now())
        speeds.append(report.images_per_second)
    return {
        "first": anonymous[0],
        "last": anonymous[-1],
        "most": max(anonymous),
        "images_per_second": median(speeds[1:]),
        "loaded": loaded,
    }


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
