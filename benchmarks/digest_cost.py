"""What a digest in each file, and a synced folder, cost: processor seconds and bytes of 1,000 rows, as ratios.

    uv run python benchmarks/digest_cost.py

Three ways of writing take turns within one run: as it is, without a digest, and without a synced folder either, as in
earlier versions. The ratios are medians over the turns, each against the last way in the same turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from pixeltune import digest, files
from pixeltune.results import parquet_io
from pixeltune.results.store import SearchStore
from tests.support.long_search import rows_of

WAYS = ("as it is", "without a digest", "without either")


@contextmanager
def written(way: str) -> Iterator[None]:
    """Leave out what a way leaves out; files without a digest are read as if it had matched."""
    with ExitStack() as stack:
        if way != WAYS[0]:
            stack.enter_context(mock.patch.object(digest, "seal", lambda content: content))
            stack.enter_context(mock.patch.object(digest, "verify", return_value=True))
            stack.enter_context(mock.patch.object(parquet_io, "_file_metadata", lambda schema: schema.metadata))
        if way == WAYS[2]:
            stack.enter_context(mock.patch.object(files, "_settle"))
        yield


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    made = list(rows_of(options.rows, 20))
    figures: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    for turn in range(options.turns):
        for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
            with tempfile.TemporaryDirectory() as folder, written(way):
                store = SearchStore(folder, "cost")
                figures[way].append(
                    (
                        _timed(lambda store=store: [store.write_trial(row) for row, _ in made]),
                        _timed(lambda store=store: [store.write_curve(row["trial"], 1, curve) for row, curve in made]),
                        _timed(store.trial_files.read),
                        _timed(store.curve_files.read),
                        sum(path.stat().st_size for path in Path(store.trials_folder).iterdir()) / options.rows,
                        sum(path.stat().st_size for path in Path(store.curves_folder).iterdir()) / options.rows,
                    )
                )
    print("| way | write rows | write curves | read rows | read curves | bytes a row | bytes a curve |")
    print("|---|---|---|---|---|---|---|")
    for way in WAYS:
        pairs = [list(zip(*two, strict=True)) for two in zip(figures[way], figures[WAYS[2]], strict=True)]
        ratios = [statistics.median(pair[place][0] / pair[place][1] for pair in pairs) for place in range(6)]
        medians = [statistics.median(turn[place] for turn in figures[way]) for place in range(6)]
        cells = [f"{value:,.2f} s, ×{ratio:.2f}" for value, ratio in zip(medians[:4], ratios[:4], strict=True)]
        cells += [f"{value:,.0f}, ×{ratio:.3f}" for value, ratio in zip(medians[4:], ratios[4:], strict=True)]
        print(f"| {way} | {' | '.join(cells)} |")


def _timed(work: Callable[[], object]) -> float:
    before = time.process_time()  # of this process: a busy machine and a slow disk count less
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
