"""The status of a search, from its files alone: while it runs, from any shell that sees them, and afterwards.

Times in the files are those of the launcher's clock; they are compared with this machine's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

from pixeltune.config import ImageSpec
from pixeltune.format import counted, duration
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED, best_report, best_row
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore

_LATE_TIMES = 3.0
_LATE_SECONDS = 60.0
"""A trial is late after three of its usual intervals, but never within a minute."""


@dataclass(frozen=True)
class Running:
    """A trial that runs, or ran when its launcher died.

    Attributes:
        images_seen, images: Training images so far, and in all.
        bits_per_dim: That of the newest report; None before the first.
        rung: The last rung that it passed; None before the first or without early stopping.
        silent_seconds: Seconds since its last report.
        late: Whether that is unusually long.
        is_bound: Whether bits_per_dim is an upper bound.
    """

    trial: str
    attempt: int
    images_seen: int
    images: int
    rung: int | None
    bits_per_dim: float | None
    images_per_second: float | None
    running_seconds: float
    silent_seconds: float
    late: bool
    is_bound: bool = False


@dataclass(frozen=True)
class SearchStatus:
    """The status of a search.

    Attributes:
        launcher: Who holds the search (`pid`, `host`); None where no launch does.
        counts: Number of ended trials by status.
        failures: Reason → number of trials without a result.
        best: The row with the lowest objective.
        left: What is left of each limit of the budget, by name.
        eta_seconds: Seconds until the first of them is reached; None where that is unknown.
        data: Name, form and counts of the images; "" before the first trial has loaded them.
    """

    search: str
    launcher: Mapping[str, Any] | None
    running: Sequence[Running]
    counts: Mapping[str, int]
    failures: Mapping[str, int]
    best: Row | None
    baseline_bits_per_dim: float | None
    left: Mapping[str, float]
    eta_seconds: float | None
    data: str = ""


def read_status(store: SearchStore, *, now: datetime | None = None) -> SearchStatus:
    """Read a search; StoreError where there is none."""
    now = now or datetime.now(UTC)
    manifest, launcher, launch = store.manifest(), store.holder(), store.launch()
    curves: dict[str, list[Row]] = {}
    for report in store.curves():
        curves.setdefault(report["trial"], []).append(report)
    rows = _latest_rows(store.attempts())
    live = [row for row in rows if row["status"] == Status.RUNNING]
    ended = [row for row in rows if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)]
    rungs = list((manifest.scheduler or {}).get("rungs", ()))
    left = _left(launch.get("budget", {}), rows, ended, curves, launch, now if launcher else None)
    return SearchStatus(
        search=store.search,
        launcher=launcher,
        running=[_running(row, curves.get(row["trial"], []), rungs, now) for row in live],
        counts=dict(sorted(Counter(row["status"] for row in rows if row["status"] != Status.RUNNING).items())),
        failures=count_failures(ended),
        best=best_so_far(rows, curves, manifest),
        baseline_bits_per_dim=manifest.baseline_bits_per_dim,
        left=left,
        eta_seconds=_eta(left, rows, ended, curves, launch, now) if launcher else None,
        data=next((f"{row['data.name']} {images}" for row in rows if (images := describe_images(row))), ""),
    )


def describe_images(row: Row) -> str:
    """Return form and counts of the images of a row as text; "" where it does not have them."""
    sides = {side: row[f"image_{side}"] for side in ("channels", "height", "width")}
    if None in sides.values() or row["levels"] is None:
        return ""
    form = ImageSpec(**sides, levels=row["levels"], num_classes=row["num_classes"])
    return form.describe({split: row[f"num_{split}"] for split in ("train", "valid", "test")})


def _latest_rows(attempts: Sequence[Row]) -> list[Row]:
    """Return the latest attempt of each trial.

    `gpu_seconds` of a running one are those of the attempts before it: its row has what it had used when it was last
    written, which was at an unknown time.
    """
    taken = {(row["trial"], row["attempt"]): row["gpu_seconds"] for row in attempts}
    latest = {row["trial"]: row for row in attempts}
    return [
        row | {"gpu_seconds": taken.get((row["trial"], row["attempt"] - 1))} if row["status"] == Status.RUNNING else row
        for row in latest.values()
    ]


def _running(row: Row, curve: Sequence[Row], rungs: Sequence[int], now: datetime) -> Running:
    last = curve[-1] if curve else {}
    own = [report["reported_at"] for report in curve if report["attempt"] == row["attempt"]]
    silent = silence_of(row["started_at"], own, now)
    images = last.get("images_seen") or 0
    return Running(
        trial=row["trial"],
        attempt=row["attempt"],
        images_seen=images,
        images=row["train.stop_after"] or row["train.images"] or 0,
        rung=rung_passed(rungs, images),
        bits_per_dim=last.get("valid_bits_per_dim"),
        images_per_second=last.get("images_per_second"),
        running_seconds=max(0.0, (now - row["started_at"]).total_seconds()),
        silent_seconds=max(0.0, silent.seconds),
        late=silent.is_late,
        is_bound=bool(row["is_bound"]),
    )


def rung_passed(rungs: Iterable[int], images_seen: int) -> int | None:
    """Return the last rung that a trial has passed; None before the first."""
    return max((rung for rung in rungs if rung <= images_seen), default=None)


def count_failures(ended: Iterable[Row]) -> dict[str, int]:
    """Return how many trials have no result for each reason, the most frequent first."""
    reasons = (
        f"{row['status']}: {row['reason'] or 'no reason is known'}" for row in ended if row["status"] not in RANKED
    )
    return dict(Counter(reasons).most_common())


def best_so_far(rows: Sequence[Row], curves: Mapping[str, Sequence[Row]], manifest: SearchManifest) -> Row | None:
    """Return the best row of a search, one that runs by its best report so far; None where no row has a number.

    Args:
        rows: The latest attempt of each trial.
        curves: The reports of the trials that run, by trial.
        manifest: The search, with its objective and constraints.
    """
    known = [
        _with_best_report(row, curves.get(row["trial"], [])) if row["status"] == Status.RUNNING else row for row in rows
    ]
    return _best(known, manifest)


def _with_best_report(row: Row, curve: Sequence[Row]) -> Row:
    """Return a running row with its best report so far: the row itself is rewritten only at its end."""
    best = best_report(curve, "valid_bits_per_dim") or {}
    return row | {name: best.get(name) for name in ("valid_bits_per_dim", "valid_nats")}


def _best(rows: Sequence[Row], manifest: SearchManifest) -> Row | None:
    first = manifest.objectives[0]
    objective = first if first in ("valid_bits_per_dim", "valid_nats") else "valid_bits_per_dim"
    return best_row(rows, objective, manifest.constraints)


def _left(
    budget: Mapping[str, Any],
    rows: Sequence[Row],
    ended: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    launch: Mapping[str, Any],
    now: datetime | None,
) -> dict[str, float]:
    """Return what is left of each limit that is set; `now` is None where no launch works on the search."""
    spent = {
        "trials": float(len(ended)),
        "images": float(_images(curves)),
        "gpu_hours": sum(_gpu_seconds(row, now) for row in rows) / 3600,
    }
    if now is not None and "started_at" in launch:
        spent["hours"] = (now - datetime.fromisoformat(launch["started_at"])).total_seconds() / 3600
    return left_of(budget, spent)


def _images(curves: Mapping[str, Sequence[Row]]) -> int:
    return sum(curve[-1]["images_seen"] for curve in curves.values())


def _gpu_seconds(row: Row, now: datetime | None) -> float:
    seconds: float = row["gpu_seconds"] or 0.0
    if row["status"] == Status.RUNNING and now is not None:
        held = (now - row["started_at"]).total_seconds()
        seconds += held * (row["gpus_per_worker"] or 0.0) * (row["workers"] or 1)
    return seconds


def _eta(
    left: Mapping[str, float],
    rows: Sequence[Row],
    ended: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    launch: Mapping[str, Any],
    now: datetime,
) -> float | None:
    """Return the seconds until the first limit is reached, at the pace of this launch so far."""
    if "started_at" not in launch:
        return None
    began = datetime.fromisoformat(launch["started_at"])
    seconds = (now - began).total_seconds()
    reports = [report for curve in curves.values() for report in curve]
    earlier: dict[str, int] = {}
    for report in reports:
        if report["reported_at"] < began:
            earlier[report["trial"]] = max(earlier.get(report["trial"], 0), report["images_seen"])
    done = {
        "trials": sum(row["finished_at"] is not None and row["finished_at"] >= began for row in ended),
        "images": _images(curves) - sum(earlier.values()),
        "gpu_hours": sum(
            (((row["finished_at"] or now) - max(row["started_at"], began)).total_seconds())
            * (row["gpus_per_worker"] or 0.0)
            * (row["workers"] or 1)
            for row in rows
            if (row["finished_at"] or now) > began
        )
        / 3600,
        "hours": seconds / 3600,
    }
    return eta_of(left, done, seconds)


def left_of(limits: Mapping[str, float | None], spent: Mapping[str, float]) -> dict[str, float]:
    """Return what is left of each limit that is set: trials, images, gpu_hours, hours."""
    limited = {name: limit for name in spent if (limit := limits.get(name)) is not None}
    return {name: max(0.0, limit - spent[name]) for name, limit in limited.items()}


def eta_of(left: Mapping[str, float], done: Mapping[str, float], seconds: float) -> float | None:
    """Return the seconds until the first limit is reached; None where nothing is done yet.

    Args:
        left: What is left of each limit; see `left_of`.
        done: What this launch has spent, by the same names.
        seconds: The time that it took.
    """
    paces = {name: done[name] / seconds for name in left if seconds > 0 and done[name] > 0}
    return min((left[name] / pace for name, pace in paces.items()), default=None)


def below_baseline(value: float, baseline: float | None) -> str:
    """Return how far a number of bits/dim is below the order-0 baseline, to follow it in a sentence; or ""."""
    if not baseline:
        return ""
    percent = 100 * (1 - value / baseline)
    return f", {abs(percent):.1f}% {'below' if percent >= 0 else 'above'} the baseline {baseline:.4f}"


@dataclass(frozen=True)
class Silence:
    """The seconds since a trial's last report, and whether they are unusually many."""

    seconds: float
    is_late: bool


def silence_of(started_at: datetime, reported_at: Sequence[datetime], now: datetime) -> Silence:
    """Return how long a running trial has not reported.

    Args:
        started_at: When the attempt began.
        reported_at: When it reported, in order.
        now: The time to measure at.
    """
    seconds = (now - max([started_at, *reported_at])).total_seconds()
    intervals = [(later - earlier).total_seconds() for earlier, later in pairwise(reported_at)]
    is_late = bool(intervals) and seconds > max(_LATE_SECONDS, _LATE_TIMES * median(intervals))
    return Silence(seconds, is_late)


def left_words(left: Mapping[str, float]) -> list[str]:
    """Return what is left of a budget, one phrase for each of its limits."""
    words = [
        counted(round(left[name]), noun) for name, noun in (("trials", "trial"), ("images", "image")) if name in left
    ]
    words += [f"{left['gpu_hours']:,.2f} GPU-hours"] if "gpu_hours" in left else []
    return words + ([f"{duration(3600 * left['hours'])} of this launch"] if "hours" in left else [])
