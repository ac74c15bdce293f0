"""What reading the results of a long search costs, before and after `pixeltune compact`: seconds and peak memory.

    uv run python benchmarks/store.py --trials 100000 --reports 20
    uv run python benchmarks/store.py --trials 5000 --reports 20 --single

The rows are those of a search, with numbers drawn by seed. `--single` writes them as a search does, a file an attempt,
and reads them before they are merged too; without it merged files are made at once, which is as fast as it gets.
Each reading is done by a process of its own, several times; the table has the median and the extremes. Memory is the
most that the process held (VmHWM), with Python and pandas, which alone take what the last line of the table says.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import pyarrow as pa

from pixeltune.results.compaction import compact
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import encode_table
from pixeltune.results.schema import SCHEMA_VERSION
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import compacted_name
from pixeltune.space import SearchSpace
from tests.support.long_search import BASE, rows_of

READ = """
import sys, time
import pixeltune as pt
import pandas, pyarrow.parquet
import pixeltune.results.dataframes
before = time.perf_counter()
frame = {call}
seconds = time.perf_counter() - before
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1000
print(seconds, peak, len(frame), frame.memory_usage(deep=True).sum() / 1e6)
"""
CALLS = {
    "read_results": "pt.read_results(sys.argv[1])",
    "read_curves": "pt.read_curves(sys.argv[1])",
    "pd.read_parquet, trials": 'pandas.read_parquet(sys.argv[1] + "/trials")',
    "nothing": "pandas.DataFrame()",
}


def main() -> None:
    """Make a store, read it, compact it, read it again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--single", action="store_true", help="write, read and merge a file an attempt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = SearchStore(folder, "long")
        store.open(SearchManifest.of(SearchSpace(title="long", base=BASE, vary={}), store.search))
        seconds = _timed(
            lambda: (write_single if options.single else write_many)(store, options.trials, options.reports)
        )
        _say(f"{options.trials:,} trials of {options.reports} reports, made in {seconds:.0f} s")
        print("| files | call | rows | seconds, median (least to most) | MB at most | the frame's MB |")
        print("|---|---|---|---|---|---|")
        if options.single:
            read(store, ["read_results", "read_curves"], options.times)
            _say(f"compacted in {_timed(lambda: compact(store)):.1f} s")
        read(store, list(CALLS), options.times)


def write_single(store: SearchStore, trials: int, reports: int) -> None:
    """As a search writes them."""
    for row, curve in rows_of(trials, reports):
        store.write_trial(row)
        store.write_curve(row["trial"], 1, curve)


def write_many(store: SearchStore, trials: int, reports: int) -> None:
    """The same rows in merged files of a thousand trials each, which are then merged as `pixeltune compact` does."""
    rows = rows_of(trials, reports)
    same = {"schema_version": SCHEMA_VERSION, "search": store.search}
    for number in range(1, -(-trials // 1000) + 1):
        some = list(itertools.islice(rows, 1000))
        points = [same | point | {"trial": row["trial"], "attempt": 1} for row, curve in some for point in curve]
        for place, table in ((store.trial_files, [same | row for row, _ in some]), (store.curve_files, points)):
            content = encode_table(pa.Table.from_pylist(table, schema=place.schema), place.schema)
            place.publish(compacted_name(number), content)
    compact(store)


def read(store: SearchStore, names: list[str], times: int) -> None:
    """Lines of the table."""
    count = len(store.trial_files.names()) + len(store.curve_files.names())
    for name in names:
        code = [sys.executable, "-c", READ.replace("{call}", CALLS[name]), store.folder]
        runs = [
            [float(word) for word in subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()]
            for _ in range(times)
        ]
        seconds, peaks, rows, sizes = zip(*runs, strict=True)
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        print(f"| {count:,} | {name} | {rows[0]:,.0f} | {spread} | {max(peaks):,.0f} | {sizes[0]:,.0f} |", flush=True)


def _timed(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
