"""Which sampler and scheduler find good configurations soonest: `uv run benchmarks/search_quality.py [--seeds 20]`.

Replays searches of `digits_quick` against the table of benchmarks/digits_grid.py, in which every configuration of a
grid has been trained: the search's own state, searcher and pruner run as ever, and a trial's reports are looked up.
What is counted are training images, over all trials, until the incumbent (the trial with the lowest value so far) is of
a configuration among the best 1% of the table by the mean of its seeds. Prints a table for RESULTS.md: medians over
seeds of the search, and how many times fewer than random search without stopping.
"""

from __future__ import annotations

import argparse
import bisect
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from digits_grid import GRID, SEEDS, TABLE
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import TrialConfig
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.messages import Message
from pixeltune.search.pruners import pruner_for
from pixeltune.search.searcher import OptunaSearcher
from pixeltune.search.state import SearchState
from pixeltune.space import Budget, Median, SearchSpace, load_search
from tests.support.noop import report_of

BEST_SHARE = 0.01
AT_ONCE = 2
MOST_TRIALS = 400

Point = tuple[Any, ...]
"""Values of the keys of GRID."""


@dataclass(frozen=True)
class Table:
    """curves: of each point and seed, value by images seen, to the end."""

    curves: Mapping[tuple[Point, int], dict[int, float]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """The points of which every seed has been trained."""
        frame = pd.read_parquet(path)
        mixtures = frame["likelihood.mixtures"].astype(object).where(frame["likelihood.mixtures"].notna(), None)
        curves: dict[tuple[Point, int], dict[int, float]] = {}
        for row in frame.assign(**{"likelihood.mixtures": mixtures}).to_dict("records"):
            key = tuple(row[name] for name in GRID), row["seed"]
            curves.setdefault(key, {})[row["images_seen"]] = row["valid_bits_per_dim"]
        whole = {point for point, _ in curves if all((point, seed) in curves for seed in SEEDS)}
        return cls({key: curve for key, curve in curves.items() if key[0] in whole})

    @cached_property
    def ranking(self) -> list[Point]:
        """Points, best first, by the mean over seeds of the lowest value."""
        points = {point for point, _ in self.curves}
        return sorted(points, key=lambda point: statistics.mean(min(self.curves[point, s].values()) for s in SEEDS))

    @property
    def best(self) -> list[Point]:
        """The best 1%."""
        return self.ranking[: math.ceil(BEST_SHARE * len(self.ranking))]


def on_the_grid(space: SearchSpace) -> SearchSpace:
    """The search with its own ranges, in the steps of the table where a key has steps."""
    steps = {
        "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
        "likelihood.mixtures": IntDistribution(2, 8, step=2),
        "model.layers": IntDistribution(2, 6, step=2),
        "model.channels": IntDistribution(16, 48, step=16),
        "model.dropout": FloatDistribution(0.0, 0.5, step=0.25),
        "optim.lr": FloatDistribution(5e-4, 1e-2, log=True),
    }
    base = space.base.override({"model.channels": 32, "model.layers": 4, "model.dropout": 0.25})
    return replace(space, base=base, vary=steps, budget=Budget(trials=MOST_TRIALS), keep=0)


def point_of(config: TrialConfig) -> Point:
    """The point of the grid that is nearest to a configuration; of mixtures and rates by their ratio."""
    flat = config.flat()
    values = []
    for name, choices in GRID.items():
        value = flat.get(name)
        numbers = [choice for choice in choices if choice is not None]
        is_ratio = name in ("likelihood.mixtures", "optim.lr")
        scaled = [math.log(number) if is_ratio else number for number in numbers]
        if value is None:
            values.append(None)
            continue
        sought = math.log(value) if is_ratio else value
        values.append(min(zip(scaled, numbers, strict=True), key=lambda pair: abs(pair[0] - sought))[1])
    return tuple(values)


def images_until_found(space: SearchSpace, table: Table, folder: str) -> float:
    """Training images of a search, over all trials; infinite where it never finds one."""
    store = SearchStore(folder, "replay")
    store.open(SearchManifest.of(space, "replay"))
    state = SearchState(space, store, pruner=pruner_for(space))
    searcher, best = OptunaSearcher(space, state), set(table.best)
    lowest, spent = math.inf, 0
    running: dict[str, tuple[Point, Iterator[Message]]] = {}
    while state.next_number < MOST_TRIALS or running:
        while len(running) < AT_ONCE and state.next_number < MOST_TRIALS:
            plan = searcher.next_plan()
            state.start(plan, state.space.resources)
            point = point_of(plan.config)
            running[plan.trial] = point, _told(table.curves[point, plan.number % len(SEEDS)], plan.config)
        for trial, (point, told) in list(running.items()):
            message = next(told, None)
            if message is not None and "report" in message:
                spent += space.base.train.report_every or 0
                value = message["report"]["valid_bits_per_dim"]
                if value < lowest:
                    lowest = value
                    if point in best:
                        return spent
            if message is None or state.receive(trial, message) is not None:
                del running[trial]
                state.finish(trial)
    return math.inf


def _told(curve: Mapping[int, float], config: TrialConfig) -> Iterator[Message]:
    yield {"facts": {"config_key": config.key(), "num_parameters": 1, "data_checksum": "table"}, "resumed": []}
    for images, value in sorted(curve.items()):
        yield {"report": report_of(config, images, value), "facts": {"peak_memory_bytes": 1}}
    yield {"end": "finished", "reason": None}


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", default="random,tpe,gp,cmaes,nsga2")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    table, space = Table.read(options.table), on_the_grid(load_search("digits_quick"))
    print(f"{len(table.ranking)} configurations × {len(SEEDS)} seeds, {len(table.best)} of them the best 1%\n")
    print(
        "| sampler | scheduler | images, median | quartiles | found | times fewer than random |\n"
        "|---|---|--:|--:|--:|--:|"
    )
    schedulers = {"none": None, "median": Median(), "ASHA": space.scheduler}
    reference = math.nan
    for sampler in options.samplers.split(","):
        for name, scheduler in schedulers.items():
            found = []
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory(dir=_quick_folder()) as folder:
                    searched = replace(space, sampler=sampler, scheduler=scheduler, seed=seed)
                    bisect.insort(found, images_until_found(searched, table, folder))
            median, low, high = (found[int(share * (len(found) - 1))] for share in (0.5, 0.25, 0.75))
            reference = median if (sampler, name) == ("random", "none") else reference
            reached = sum(math.isfinite(images) for images in found)
            print(
                f"| {sampler} | {name} | {median:,.0f} | {low:,.0f} to {high:,.0f} | {reached} of {len(found)} | "
                f"{reference / median:.1f} |",
                flush=True,
            )


def _quick_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
