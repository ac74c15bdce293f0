"""How long a search will still take, from the measured speed of its trials: for the display and `pixeltune status`.

A trial costs its training and an overhead: its process, audit, validation, samples. Both are known for trials that
ended, and from a few seconds after its start for a trial that runs. How long the trials to come will train is known
from those that ended; before, from the rungs of early stopping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from pixeltune.results.parquet_io import Row

_PRIOR_TRIALS = 3.0
"""How many ended trials the length foreseen from the rungs weighs as much as."""


@dataclass(frozen=True)
class TrialPace:
    """What one trial has cost so far.

    Attributes:
        images: Training images seen.
        end: Training images after which it ends if nothing stops it.
        speed: Images per second while it trains.
        overhead: Seconds that it did not train.
        is_running: Whether it runs now.
    """

    images: int
    end: int
    speed: float
    overhead: float
    is_running: bool = False


def pace_of_ended(row: Row) -> TrialPace | None:
    """Return the pace of a trial that ended; None if it did not train."""
    images, seconds = row["images_seen"] or 0, row["train_seconds"] or 0.0
    if not images or seconds <= 0 or row["finished_at"] is None:
        return None
    wall = (row["finished_at"] - row["started_at"]).total_seconds()
    return TrialPace(images, _end_of(row), images / seconds, max(0.0, wall - seconds))


def pace_of_running(
    row: Row, reports: Sequence[Row], progress: Mapping[str, Any] | None, now: datetime
) -> TrialPace | None:
    """Return the pace of a trial that runs; None before its speed is known.

    Args:
        row: Its row, or its configuration with `started_at`.
        reports: Of all its attempts, in order.
        progress: Where it is since its last report, if that is known.
        now: The time to measure at.
    """
    last = progress or (reports[-1] if reports else None)
    if last is None or not last["images_per_second"]:
        return None
    before = max((each["images_seen"] for each in reports if each["reported_at"] < row["started_at"]), default=0)
    trained = (last["images_seen"] - before) / last["images_per_second"]
    wall = (now - row["started_at"]).total_seconds()
    waited = (now - last["reported_at"]).total_seconds()  # it may train on since then
    overhead = max(0.0, wall - waited - trained)
    return TrialPace(last["images_seen"], _end_of(row), last["images_per_second"], overhead, is_running=True)


def _end_of(row: Row) -> int:
    return int(row["train.stop_after"] or row["train.images"] or 0)


def expected_images(end: int, scheduler: Mapping[str, Any] | None) -> float:
    """Return how many images a trial trains on, on average, as far as its scheduler says.

    Args:
        end: Training images of a trial that nothing stops.
        scheduler: Its settings; `rungs` and `reduction` of successive halving.
    """
    rungs, reduction = (scheduler or {}).get("rungs", ()), (scheduler or {}).get("reduction")
    if not reduction:
        return float(end)
    share, expected, before = 1.0, 0.0, 0
    for rung in [*sorted(rung for rung in rungs if rung < end), end]:
        expected += share * (rung - before)
        share, before = share / reduction, rung
    return expected


def seconds_left(
    paces: Sequence[TrialPace],
    *,
    to_start: int,
    concurrent: int,
    foreseen: float,
    images: float | None = None,
) -> float | None:
    """Return the seconds until no trial is left, or until the images of the budget are used up.

    Args:
        paces: Of ended and running trials.
        to_start: How many trials have not started.
        concurrent: How many run at once.
        foreseen: Images of a trial as `expected_images` returns them.
        images: Images that are left of the budget; None without such a limit.

    Returns:
        None if no trial has a speed yet.
    """
    if not paces:
        return None
    ended = [pace for pace in paces if not pace.is_running]
    running = [pace for pace in paces if pace.is_running]
    seconds_per_image = fmean(1 / pace.speed for pace in paces)
    overhead = fmean(pace.overhead for pace in ended or running)
    length = (_PRIOR_TRIALS * foreseen + sum(pace.images for pace in ended)) / (_PRIOR_TRIALS + len(ended))
    own = [_images_left(pace, length) / pace.speed + max(0.0, overhead - pace.overhead) for pace in running]
    lanes = max(1, min(concurrent, to_start + len(running)))
    total = (sum(own) + to_start * (overhead + length * seconds_per_image)) / lanes
    left = max([total, *own])
    return left if images is None else min(left, images * seconds_per_image / lanes)


def _images_left(pace: TrialPace, length: float) -> float:
    """Return how many images a running trial still trains on: to the usual length, or half of the rest beyond it."""
    rest = max(0, pace.end - pace.images)
    return min(rest, length - pace.images) if pace.images < length else rest / 2
