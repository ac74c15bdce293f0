"""Ways to read single images in random order from a file that memory does not hold.

    OMP_NUM_THREADS=1 uv run benchmarks/reads.py --gigabytes 6 --limit 3        # needs root and Linux control groups

Each way reads images of 12 KB that no way before it has read, in a process whose memory is limited, page cache
included; the file leaves the cache before. `images/s` counts what the process computed or waited for the disk, not what
it waited for a processor that others used, so that what was announced may arrive meanwhile; of threads it is wall time.
`CPU µs` are of all threads.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from stream import BATCH, IMAGE_BYTES, generate, memory_group, seconds

WAYS = {
    "memory map": ("map", 1, 600),
    "memory map, MADV_RANDOM": ("random map", 1, 4000),
    "preadv": ("read", 1, 8000),
    "preadv, POSIX_FADV_RANDOM": ("random read", 1, 8000),
    **{f"preadv of {n} threads": ("threads", n, 12_000) for n in (4, 8, 16, 32)},
    **{f"preadv, {n} images announced": ("announced", n, 12_000) for n in (32, 64, 128, 256)},
    "preadv of 16 threads, O_DIRECT": ("direct", 16, 12_000),
}
_HEADER = 128
_SECTOR = 4096


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of images")
    parser.add_argument("--limit", type=float, default=3.0, help="gigabytes of memory")
    parser.add_argument("--folder", help="where the images are put for the while [a temporary one]")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(**json.loads(options.child))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, memory_group(options.limit) as group:
        path = Path(folder) / "images.npy"
        count = generate(path, options.gigabytes)
        print("| date | way | images/s | CPU µs an image | KB from the disk an image |\n|---|---|---|---|---|")
        first = 0
        for name, (way, many, images) in WAYS.items():
            told = {"path": str(path), "count": count, "first": first, "images": images, "way": way, "many": many}
            first += images

            def enter() -> None:
                (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

            words = [sys.executable, __file__, "--child", json.dumps(told)]
            done = subprocess.run(words, preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True)
            cells = " | ".join(json.loads(done.stdout))
            print(f"| {datetime.now(UTC):%Y-%m-%d} | {name} | {cells} |", flush=True)


def _measure(path: str, count: int, first: int, images: int, way: str, many: int) -> tuple[str, str, str]:
    file = os.open(path, os.O_RDONLY | (os.O_DIRECT if way == "direct" else 0))
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    if way == "random read":
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    order = np.random.default_rng(0).permutation(count)[first : first + images]
    places = (_HEADER + order * IMAGE_BYTES).tolist()
    clock = time.perf_counter if way in ("threads", "direct") else seconds
    disk, cpu, start = _kilobytes_read(), time.process_time(), clock()
    if way in ("threads", "direct"):
        read = _read_aligned if way == "direct" else _read
        with ThreadPoolExecutor(many) as pool:
            list(pool.map(lambda lane: read(file, places[lane::many]), range(many)))
    elif way == "announced":
        _read_announced(file, places, many)
    elif way in ("map", "random map"):
        mapped = np.load(path, mmap_mode="r")
        if way == "random map":
            mapped._mmap.madvise(mmap.MADV_RANDOM)
        for batch in range(0, images, BATCH):
            mapped[order[batch : batch + BATCH]]
    else:
        _read(file, places)
    speed, cpu, disk = images / (clock() - start), time.process_time() - cpu, _kilobytes_read() - disk
    return f"{speed:,.0f}", f"{cpu / images * 1e6:,.0f}", f"{disk / images:,.0f}"


def _read(file: int, places: Iterable[int]) -> None:
    into = bytearray(IMAGE_BYTES)
    for place in places:
        os.preadv(file, [into], place)


def _read_announced(file: int, places: list[int], ahead: int) -> None:
    into = bytearray(IMAGE_BYTES)
    for row in range(len(places) + ahead):
        if row < len(places):
            os.posix_fadvise(file, places[row], IMAGE_BYTES, os.POSIX_FADV_WILLNEED)
        if row >= ahead:
            os.preadv(file, [into], places[row - ahead])


def _read_aligned(file: int, places: Iterable[int]) -> None:
    """Without the page cache, which asks for whole sectors in memory that begins with a page."""
    into = memoryview(mmap.mmap(-1, IMAGE_BYTES + 2 * _SECTOR))
    for place in places:
        start, end = place // _SECTOR * _SECTOR, -(-(place + IMAGE_BYTES) // _SECTOR) * _SECTOR
        os.preadv(file, [into[: end - start]], start)


def _kilobytes_read() -> float:
    """By this process, from the disk."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes")) / 1000


if __name__ == "__main__":
    main()
