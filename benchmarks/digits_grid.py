"""The table on which samplers and schedulers are judged: a full grid of `digits_quick`, every fit really trained.

    uv run benchmarks/digits_grid.py --processes 2        # adds what is missing to benchmarks/digits_grid.parquet

324 configurations within the ranges of the search, two seeds each, to the search's own 16,000 images; a row is one
report: the varied keys, seed, images_seen, valid_bits_per_dim and seconds of training (one thread, often beside other
work: for orientation). Started again, it goes on; the file is written whole every 50 fits.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pixeltune.space import load_search
from pixeltune.training.loop import fit

TABLE = Path(__file__).with_name("digits_grid.parquet")
SEEDS = (0, 1)
GRID: dict[str, tuple[Any, ...]] = {
    "likelihood.mixtures": (None, 2, 4, 8),
    "model.layers": (2, 4, 6),
    "model.channels": (16, 32, 48),
    "model.dropout": (0.0, 0.25, 0.5),
    "optim.lr": (5e-4, 5e-4 * 20**0.5, 1e-2),
}
"""None: the categorical likelihood, which has no mixtures. The learning rates are even in their logarithm."""
SAVE_EVERY = 50

Fit = dict[str, Any]
"""One point of the grid with its `seed`."""


def main() -> None:
    """Train what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    rows: list[Fit] = _read(options.table)
    known = {_key(row) for row in rows}
    missing = [each for each in fits() if _key(each) not in known]
    print(f"{len(missing)} fits are missing", flush=True)
    with multiprocessing.get_context("spawn").Pool(options.processes, torch.set_num_threads, (1,)) as pool:
        for done, reports in enumerate(pool.imap_unordered(train, missing), start=1):
            rows += reports
            if done % SAVE_EVERY == 0 or done == len(missing):
                _write(rows, options.table)
                print(f"{done} of {len(missing)}", flush=True)


def fits() -> Iterator[Fit]:
    """All points with all seeds. Neighbours in the grid lie apart, so that a table in the making covers all of it."""
    points = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    stride = 125  # has no factor in common with 324
    for seed in SEEDS:
        for place in range(len(points)):
            yield points[place * stride % len(points)] | {"seed": seed}


def changes_of(point: Fit) -> dict[str, Any]:
    """What a point changes in the base of `digits_quick`."""
    keys = {key: value for key, value in point.items() if value is not None}
    name = "logistic_mixture" if "likelihood.mixtures" in keys else "categorical"
    return {"likelihood.name": name, **keys}


def train(point: Fit) -> list[Fit]:
    """The rows of one fit."""
    config = load_search("digits_quick").base.override(changes_of(point))
    return [
        point
        | {
            "images_seen": report.images_seen,
            "valid_bits_per_dim": report.valid_bits_per_dim,
            "train_seconds": report.train_seconds,
        }
        for report in fit(config)
    ]


def _key(row: Fit) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*GRID, "seed"))


def _read(table: Path) -> list[Fit]:
    if not table.exists():
        return []
    frame = pd.read_parquet(table)
    mixtures = frame["likelihood.mixtures"].astype(object).where(frame["likelihood.mixtures"].notna(), None)
    rows: list[Fit] = frame.assign(**{"likelihood.mixtures": mixtures}).to_dict("records")
    return rows


def _write(rows: list[Fit], table: Path) -> None:
    frame = pd.DataFrame(rows).astype({"likelihood.mixtures": "Int64"})
    frame = frame.sort_values([*GRID, "seed", "images_seen"], ignore_index=True)
    scratch = table.with_suffix(".tmp")
    frame.to_parquet(scratch, index=False)
    scratch.rename(table)


if __name__ == "__main__":
    main()
