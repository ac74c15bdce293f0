"""A search as it was read once, because a search may still be running and all parts of its report must agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED, best_report, leaderboard
from pixeltune.results.repeats import merge_repeats
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.space.metrics import METRICS, sign_of_direction


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The contents of a search's files at `read_at`.

    Attributes:
        launcher: Who held the search then; None where no launch did.
        launch: Facts about the newest launch; may be empty.
        attempts: All rows, by number and attempt.
        rows: The latest attempt of each trial.
        curves: Reports by trial.
        places: The leaderboard of all ranked trials; empty in a final, whose rows hold test numbers.
    """

    store: SearchStore
    manifest: SearchManifest
    launcher: Mapping[str, Any] | None
    launch: Mapping[str, Any]
    attempts: Sequence[Row]
    rows: Sequence[Row]
    curves: Mapping[str, Sequence[Row]]
    places: Sequence[Row]
    read_at: datetime

    @property
    def search(self) -> str:
        """Return its name."""
        return self.manifest.search

    @property
    def is_final(self) -> bool:
        """Return whether it retrains chosen configurations, with test numbers."""
        return self.manifest.final is not None

    @property
    def objective(self) -> str:
        """Return the first objective, by which trials are ranked."""
        return self.manifest.objectives[0]

    @property
    def sign(self) -> int:
        """Return 1 where less of the first objective is better, else −1."""
        return sign_of_direction(self.manifest.directions[0])

    @property
    def unit(self) -> str:
        """Return the metric of likelihoods: nats of binarised images, as in their papers, else bits_per_dim."""
        return "nats" if any(row["levels"] == 2 for row in self.rows) else "bits_per_dim"

    @property
    def is_bound(self) -> bool:
        """Return whether any ranked number is a bound."""
        return any(row["is_bound"] for row in self.rows if row["status"] in RANKED)

    @cached_property
    def configurations(self) -> Sequence[Row]:
        """Return the rows, in a search with repeats merged to one a configuration."""
        return merge_repeats(self.rows)

    def best(self, count: int) -> list[Row]:
        """Return the rows of the `count` best configurations that satisfy the constraints, best first."""
        by_trial = {row["trial"]: row for row in self.configurations}
        return [by_trial[place["trial"]] for place in self.places if place["rank"] is not None][:count]

    def baseline(self) -> float | None:
        """Return order-0 on validation, in `unit`; None where it is not known."""
        bits = self.manifest.baseline_bits_per_dim
        form = next((row for row in self.rows if row["image_height"] is not None), None)
        if bits is None or self.unit == "bits_per_dim":
            return bits
        if form is None:
            return None
        return bits * math.log(2) * int(form["image_channels"] * form["image_height"] * form["image_width"])


def read_snapshot(store: SearchStore, *, now: datetime | None = None) -> Snapshot:
    """Read a search; StoreError where there is none."""
    manifest = store.manifest()
    attempts = store.attempts()
    latest = {row["trial"]: row for row in sorted(attempts, key=lambda row: row["attempt"])}
    curves: dict[str, list[Row]] = {}
    for report in store.curves():
        curves.setdefault(report["trial"], []).append(report)
    rows = [_so_far(row, curves.get(row["trial"], [])) for row in attempts if latest[row["trial"]] is row]
    objective = manifest.objectives[0]
    ranked = objective in METRICS and manifest.final is None
    return Snapshot(
        store=store,
        manifest=manifest,
        launcher=store.holder(),
        launch=store.launch(),
        attempts=attempts,
        rows=rows,
        curves=curves,
        places=leaderboard(rows, objective, None, list(manifest.searched()), manifest.constraints) if ranked else [],
        read_at=now or datetime.now(UTC),
    )


def _so_far(row: Row, curve: Sequence[Row]) -> Row:
    """Return a running trial's row with the numbers of its best report: the row itself is rewritten only at its end."""
    if row["status"] != Status.RUNNING or not curve:
        return row
    best = best_report(curve, "valid_bits_per_dim") or {}
    names = ("valid_bits_per_dim", "valid_nats", "baseline_bits_per_dim")
    return row | {name: best.get(name, row[name]) for name in names} | {"images_seen": curve[-1]["images_seen"]}
