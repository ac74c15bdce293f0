"""The status of a search, from its files alone: while it runs, from any shell that sees them, and afterwards.

Times in the files are those of the launcher's clock; they are compared with this machine's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

from pixeltune.config import ImageSpec
from pixeltune.format import counted, dollars, duration
from pixeltune.results.budget_aims import first_at_target, trials_without_improvement
from pixeltune.results.forecast import expected_images, pace_of_ended, pace_of_running, seconds_left
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED, best_report, best_row, contenders
from pixeltune.results.repeats import is_settled
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore, without_continuations

_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")
_LATE_TIMES = 3.0
_LATE_SECONDS = 60.0
"""A trial is late after three of its usual intervals, but never within a minute."""


@dataclass(frozen=True)
class Running:
    """A trial that runs, or ran when its launcher died.

    Attributes:
        images_seen, images: Training images so far, and in all.
        bits_per_dim: That of the newest report, on validation; None before the first.
        train_bits_per_dim: Mean over the training images since the last report; None before it is known.
        rung: The last rung that it passed; None before the first or without early stopping.
        silent_seconds: Seconds since its last report or progress.
        late: Whether that is unusually long.
        is_bound: Whether bits_per_dim is an upper bound.
        repeat_of: The trial that it repeats with another seed; None if it repeats none.
    """

    trial: str
    attempt: int
    images_seen: int
    images: int
    rung: int | None
    bits_per_dim: float | None
    train_bits_per_dim: float | None
    images_per_second: float | None
    running_seconds: float
    silent_seconds: float
    late: bool
    is_bound: bool = False
    repeat_of: str | None = None


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
        contenders: Trials with a better number than `best`, which lack seeds; none where one seed is enough.
        dollars: Cost of all trials, of those whose price is known; None if none is.
        target: The target of the budget, and whether a trial has reached it; None without a target.
        ended: Why the newest launch ended; None if it has not, or was killed.
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
    contenders: Sequence[str] = ()
    dollars: float | None = None
    target: TargetStatus | None = None
    ended: str | None = None


@dataclass(frozen=True)
class TargetStatus:
    """The target of a search. reached_by: the first trial that reached it; None while none has."""

    metric: str
    value: float
    reached_by: str | None


def read_status(store: SearchStore, *, now: datetime | None = None) -> SearchStatus:
    """Read a search; StoreError where there is none."""
    now = now or datetime.now(UTC)
    manifest, launcher, launch = store.manifest(), store.holder(), store.launch()
    curves: dict[str, list[Row]] = {}
    attempts, reports = without_continuations(store.attempts(), store.curves())
    for report in reports:
        curves.setdefault(report["trial"], []).append(report)
    rows = _latest_rows(attempts)
    live = [row for row in rows if row["status"] == Status.RUNNING]
    ended = [row for row in rows if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)]
    rungs = list((manifest.scheduler or {}).get("rungs", ()))
    progress = _newest(store.progress(), live, curves)
    best = best_so_far(rows, curves, manifest)
    left = _left(manifest, rows, ended, curves, launch, now if launcher else None)
    costs = [cost for row in rows if (cost := _dollars(row, now if launcher else None)) is not None]
    eta = None
    if launcher:
        eta = eta_seconds(
            rows,
            curves,
            progress,
            left=left,
            concurrent=launch.get("concurrent", 1),
            scheduler=manifest.scheduler,
            now=now,
        )
    return SearchStatus(
        search=store.search,
        launcher=launcher,
        running=[_running(row, curves.get(row["trial"], []), progress.get(row["trial"]), rungs, now) for row in live],
        counts=dict(sorted(Counter(row["status"] for row in rows if row["status"] != Status.RUNNING).items())),
        failures=count_failures(ended),
        best=best,
        contenders=_contenders(rows, best, manifest),
        baseline_bits_per_dim=manifest.baseline_bits_per_dim,
        left=left,
        eta_seconds=eta,
        dollars=sum(costs) if costs else None,
        target=_target(launch.get("budget", {}).get("target"), ended, manifest),
        ended=None if launcher else launch.get("ended"),
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

    `gpu_seconds` and `dollars` of a running one are those of the attempts before it: its row has what it had used when
    it was last written, which was at an unknown time.
    """
    by_attempt = {(row["trial"], row["attempt"]): row for row in attempts}
    latest = {row["trial"]: row for row in attempts}

    def with_earlier_cost(row: Row) -> Row:
        before = by_attempt.get((row["trial"], row["attempt"] - 1), {})
        return row | {name: before.get(name) for name in ("gpu_seconds", "dollars")}

    return [with_earlier_cost(row) if row["status"] == Status.RUNNING else row for row in latest.values()]


def _newest(progress: Mapping[str, Row], live: Sequence[Row], curves: Mapping[str, Sequence[Row]]) -> dict[str, Row]:
    """Return the progress of running attempts that is newer than their last reports."""
    newest = {}
    for row in live:
        trial, reports = row["trial"], curves.get(row["trial"], ())
        found = progress.get(trial)
        if (
            found
            and found["attempt"] == row["attempt"]
            and found["images_seen"] > max((report["images_seen"] for report in reports), default=0)
        ):
            newest[trial] = found
    return newest


def _running(row: Row, curve: Sequence[Row], progress: Row | None, rungs: Sequence[int], now: datetime) -> Running:
    last: Row = curve[-1] if curve else {}
    newest = progress or last
    own = [report["reported_at"] for report in curve if report["attempt"] == row["attempt"]]
    silent = silence_of(row["started_at"], own, now, heard_at=progress["reported_at"] if progress else None)
    images = newest.get("images_seen") or 0
    return Running(
        trial=row["trial"],
        attempt=row["attempt"],
        images_seen=images,
        images=row["train.stop_after"] or row["train.images"] or 0,
        rung=rung_passed(rungs, images),
        bits_per_dim=last.get("valid_bits_per_dim"),
        train_bits_per_dim=newest.get("train_bits_per_dim"),
        images_per_second=newest.get("images_per_second"),
        running_seconds=max(0.0, (now - row["started_at"]).total_seconds()),
        silent_seconds=max(0.0, silent.seconds),
        late=silent.is_late,
        is_bound=bool(row["is_bound"]),
        repeat_of=row.get("repeat_of"),
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


def common_failure(rows: Iterable[Row]) -> str:
    """Return the reason for which all trials that came to an end failed, numbers aside; "" if one did not.

    Such a reason is a fault of the search or of the machines, not of a configuration.
    """
    ended = [row for row in rows if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)]
    kinds = {(row["status"], _NUMBER.sub("#", row["reason"] or "")) for row in ended}
    if len(kinds) != 1 or ended[0]["status"] not in (Status.FAILED, Status.REJECTED):
        return ""
    return ended[0]["reason"] or "no reason is known"


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
    numbers = {name: best.get(name) for name in ("valid_bits_per_dim", "valid_nats")}
    images = max((report["images_seen"] for report in curve), default=0)
    return row | numbers | {"images_seen": images, "best_images_seen": best.get("images_seen")}


def _best(rows: Sequence[Row], manifest: SearchManifest) -> Row | None:
    return best_row(rows, _objective(manifest), manifest.constraints)


def _contenders(rows: Sequence[Row], best: Row | None, manifest: SearchManifest) -> list[str]:
    if best is None or not is_settled(best):
        return []
    return [row["trial"] for row in contenders(rows, _objective(manifest), manifest.constraints)]


def _objective(manifest: SearchManifest) -> str:
    first = manifest.objectives[0]
    return first if first in ("valid_bits_per_dim", "valid_nats") else "valid_bits_per_dim"


def _target(value: float | None, ended: Sequence[Row], manifest: SearchManifest) -> TargetStatus | None:
    if value is None:
        return None
    metric = manifest.objectives[0]
    reached = first_at_target(ended, metric, value, manifest.constraints)
    return TargetStatus(metric, value, None if reached is None else reached["trial"])


def _left(
    manifest: SearchManifest,
    rows: Sequence[Row],
    ended: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    launch: Mapping[str, Any],
    now: datetime | None,
) -> dict[str, float]:
    """Return what is left of each limit that is set; `now` is None where no launch works on the search."""
    budget = launch.get("budget", {})
    spent = {
        "trials": float(len(ended)),
        "images": float(_images(curves)),
        "gpu_hours": sum(_gpu_seconds(row, now) for row in rows) / 3600,
        "dollars": sum(_dollars(row, now) or 0.0 for row in rows),
    }
    if budget.get("patience") is not None:
        first, least = manifest.objectives[0], budget.get("min_delta", 0.0)
        spent["patience"] = float(trials_without_improvement(ended, first, least, manifest.constraints))
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


def _dollars(row: Row, now: datetime | None) -> float | None:
    """Return what a trial has cost; None if none of its attempts had a price."""
    cost: float | None = row["dollars"]
    if row["status"] == Status.RUNNING and now is not None and row["dollars_per_hour"] is not None:
        held: float = (now - row["started_at"]).total_seconds()
        cost = (cost or 0.0) + held / 3600 * row["dollars_per_hour"]
    return cost


def eta_seconds(
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    progress: Mapping[str, Row],
    *,
    left: Mapping[str, float],
    concurrent: int,
    scheduler: Mapping[str, Any] | None,
    now: datetime,
) -> float | None:
    """Return the seconds until the first limit of the budget is reached; None where no trial has a speed yet.

    Args:
        rows: The latest row of each trial.
        curves: The reports of running trials, by trial.
        progress: Where running trials are since their last reports, by trial.
        left: What is left of each limit; see `left_of`.
        concurrent: How many trials run at once.
        scheduler: The settings of early stopping.
        now: The time to measure at.
    """
    running = [row for row in rows if row["status"] == Status.RUNNING]
    paces = [
        *(pace_of_ended(row) for row in rows if row["status"] not in (Status.RUNNING, Status.INTERRUPTED)),
        *(pace_of_running(row, curves.get(row["trial"], ()), progress.get(row["trial"]), now) for row in running),
    ]
    known = [pace for pace in paces if pace is not None]
    end = max((pace.end for pace in known), default=0)
    seconds = seconds_left(
        known,
        to_start=max(0, round(left.get("trials", 0)) - len(running)),
        concurrent=concurrent,
        foreseen=expected_images(end, scheduler),
        images=left.get("images"),
    )
    limits = [] if seconds is None else [seconds]
    gpus = sum((row["gpus_per_worker"] or 0.0) * (row["workers"] or 1) for row in running)
    if gpus and "gpu_hours" in left:
        limits.append(3600 * left["gpu_hours"] / gpus)
    price: float = sum(row["dollars_per_hour"] or 0.0 for row in running)
    if price and "dollars" in left:
        limits.append(3600 * left["dollars"] / price)
    if "hours" in left:
        limits.append(3600 * left["hours"])
    return min(limits, default=None)


def left_of(limits: Mapping[str, float | None], spent: Mapping[str, float]) -> dict[str, float]:
    """Return what is left of each limit that is set: trials, images, gpu_hours, hours, dollars, patience."""
    limited = {name: limit for name in spent if (limit := limits.get(name)) is not None}
    return {name: max(0.0, limit - spent[name]) for name, limit in limited.items()}


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


def silence_of(
    started_at: datetime, reported_at: Sequence[datetime], now: datetime, *, heard_at: datetime | None = None
) -> Silence:
    """Return how long nothing has been heard of a running trial.

    Args:
        started_at: When the attempt began.
        reported_at: When it reported, in order.
        now: The time to measure at.
        heard_at: When its progress was known, if that is later than its last report.
    """
    seconds = (now - max([started_at, *reported_at, *([heard_at] if heard_at else [])])).total_seconds()
    intervals = [(later - earlier).total_seconds() for earlier, later in pairwise(reported_at)]
    is_late = bool(intervals) and seconds > max(_LATE_SECONDS, _LATE_TIMES * median(intervals))
    return Silence(seconds, is_late)


def left_words(left: Mapping[str, float]) -> list[str]:
    """Return what is left of a budget, one phrase for each of its limits."""
    words = [
        counted(round(left[name]), noun) for name, noun in (("trials", "trial"), ("images", "image")) if name in left
    ]
    words += [f"{left['gpu_hours']:,.2f} GPU-hours"] if "gpu_hours" in left else []
    words += [dollars(left["dollars"])] if "dollars" in left else []
    words += [f"{counted(round(left['patience']), 'trial')} without an improvement"] if "patience" in left else []
    return words + ([f"{duration(3600 * left['hours'])} of this launch"] if "hours" in left else [])
