"""The searches of a storage, one line each: what it is, how it is, its best number, and when it worked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pixeltune.errors import StoreError, first_line
from pixeltune.files import Location
from pixeltune.results.final_statistics import first_choice, leaderboard_of
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import status_counts
from pixeltune.results.schema import Status
from pixeltune.results.search_status import best_so_far
from pixeltune.results.store import SearchStore, searches_at


@dataclass(frozen=True, kw_only=True)
class BestNumber:
    """The number of record of the best trial.

    Attributes:
        trial: The trial; of a final, the trial of its search.
        bits_per_dim: Its number.
        error: The standard error over seeds, of a final or in a search with repeats; None with one seed.
        is_bound: Whether the number is an upper bound.
        split: `valid`, or `test` of a final.
    """

    trial: str
    bits_per_dim: float
    error: float | None = None
    is_bound: bool
    split: str


@dataclass(frozen=True, kw_only=True)
class SearchOverview:
    """A search of a storage.

    Attributes:
        search: Its name.
        kind: `search`, `training` of one configuration, `final of SEARCH`, or "" where search.json cannot be read.
        status: `running`; `unfinished`, with trials to resume; `no result`, where no ended trial has a number;
            `ended`; `no trials`; or `unreadable`.
        counts: The number of trials by status.
        trials: How many trials its newest launch wanted; None where that is not known.
        best: The best number; None before there is one.
        data: The name of its data.
        began_at, last_at: When it began, and when a trial last began or ended, in UTC; None where that is not known.
        problem: Why it, or its best number, cannot be read; "" where it can.
    """

    search: str
    kind: str = ""
    status: str
    counts: Mapping[str, int]
    trials: int | None = None
    best: BestNumber | None = None
    data: str = ""
    began_at: datetime | None = None
    last_at: datetime | None = None
    problem: str = ""


def overviews(location: Location) -> Iterator[SearchOverview]:
    """Yield every search of a storage, by name; one that cannot be read has a `problem`.

    Args:
        location: A storage, or the folder of one search; a path or a URI.

    Raises:
        StoreError: There is nothing at the location.
    """
    for store in searches_at(location):
        try:
            yield _overview(store)
        except StoreError as error:
            yield SearchOverview(search=store.search, status="unreadable", counts={}, problem=first_line(error))


def _overview(store: SearchStore) -> SearchOverview:
    manifest, attempts = store.manifest(), store.attempts()
    rows = [*{row["trial"]: row for row in attempts}.values()]
    problem = ""
    try:
        best = _best_of_final(store, manifest) if manifest.final else _best_of_search(store, manifest, rows)
    except StoreError as error:  # the rest is still known
        best, problem = None, first_line(error)
    times = [time for row in attempts for time in (row["started_at"], row["finished_at"]) if time is not None]
    return SearchOverview(
        search=store.search,
        kind=kind_of(manifest),
        status=_status(store, rows, has_result=best is not None or bool(problem)),
        counts=status_counts(rows),
        trials=_wanted(store.launch()),
        best=best,
        data=str(manifest.base.get("data.name") or ""),
        began_at=time_of(manifest.created_at),
        last_at=max(times, default=None),
        problem=problem,
    )


def kind_of(manifest: SearchManifest) -> str:
    """Return `search`, `training` of one configuration, or `final of SEARCH`."""
    if manifest.final is not None:
        return f"final of {manifest.final.search}"
    return "search" if manifest.searched() else "training"


def _status(store: SearchStore, rows: list[Row], *, has_result: bool) -> str:
    if store.holder() is not None:
        return "running"
    if not rows:
        return "no trials"
    if any(row["status"] in (Status.RUNNING, Status.INTERRUPTED) for row in rows):
        return "unfinished"
    return "ended" if has_result else "no result"


def _wanted(launch: Mapping[str, Any]) -> int | None:
    budget = launch.get("budget")
    trials = budget.get("trials") if isinstance(budget, Mapping) else None
    return trials if isinstance(trials, int) else None


def time_of(text: str) -> datetime | None:
    """Return a time as the manifest has it; None for what a user made of it."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _best_of_search(store: SearchStore, manifest: SearchManifest, rows: list[Row]) -> BestNumber | None:
    running = [row["trial"] for row in rows if row["status"] == Status.RUNNING]
    row = best_so_far(rows, {trial: store.curve(trial) for trial in running}, manifest)
    if row is None or row["valid_bits_per_dim"] is None:
        return None
    return BestNumber(
        trial=row["trial"],
        bits_per_dim=row["valid_bits_per_dim"],
        error=row.get("valid_bits_per_dim_error"),
        is_bound=bool(row["is_bound"]),
        split="valid",
    )


def _best_of_final(store: SearchStore, manifest: SearchManifest) -> BestNumber | None:
    """Return the mean of the configuration that validation ranked first: the test set chooses none."""
    places = leaderboard_of(store)
    if not places or manifest.final is None:
        return None
    place = first_choice(places, manifest.final)
    return BestNumber(
        trial=place["from_trial"],
        bits_per_dim=place["bits_per_dim"],
        error=place["bits_per_dim_seeds_error"],
        is_bound=place["is_bound"],
        split="test",
    )
