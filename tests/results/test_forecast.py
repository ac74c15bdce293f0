"""The time that a search will still take, from the speed of its trials."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from pixeltune.results.forecast import (
    TrialPace,
    expected_images,
    pace_of_ended,
    pace_of_running,
    seconds_left,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    plain = {"started_at": START, "finished_at": None, "train.stop_after": None, "train.images": 1000}
    return plain | {"images_seen": None, "train_seconds": None} | changes


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_the_length_of_a_trial_follows_from_the_rungs() -> None:
    assert expected_images(1000, None) == 1000
    assert expected_images(1000, {"name": "median", "grace": 100}) == 1000
    assert expected_images(900, {"rungs": [100, 300], "reduction": 3}) == pytest.approx(100 + 200 / 3 + 600 / 9)
    assert expected_images(900, {"rungs": [100, 900, 2000], "reduction": 2}) == 100 + 800 / 2


def test_a_trial_that_ended_has_its_speed_and_its_overhead() -> None:
    ended = row(images_seen=500, train_seconds=50.0, finished_at=after(80))
    assert pace_of_ended(ended) == TrialPace(500, 1000, 10.0, 30.0)
    assert pace_of_ended(row(finished_at=after(80))) is None
    assert pace_of_ended(row(images_seen=500, train_seconds=0.0, finished_at=after(1))) is None


def test_a_running_trial_has_a_pace_from_its_first_progress_on() -> None:
    assert pace_of_running(row(), [], None, after(60)) is None
    progress = {"images_seen": 100, "images_per_second": 10.0, "reported_at": after(30)}
    assert pace_of_running(row(), [], progress, after(35)) == TrialPace(100, 1000, 10.0, 20.0, is_running=True)


def test_a_resumed_trial_counts_only_what_it_trained_itself() -> None:
    earlier = {"images_seen": 600, "images_per_second": 50.0, "reported_at": after(-3600)}
    progress = {"images_seen": 700, "images_per_second": 10.0, "reported_at": after(30)}
    assert pace_of_running(row(), [earlier], progress, after(30)) == TrialPace(700, 1000, 10.0, 20.0, is_running=True)


def test_what_is_left_is_shared_by_the_trials_that_run_at_once() -> None:
    ended = [TrialPace(1000, 1000, 10.0, 20.0)] * 2
    running = [TrialPace(500, 1000, 10.0, 20.0, is_running=True)] * 2
    options: dict[str, Any] = {"foreseen": 1000.0, "concurrent": 2}
    assert seconds_left([*ended, *running], to_start=4, **options) == pytest.approx((2 * 50 + 4 * 120) / 2)
    assert seconds_left(ended, to_start=1, **options) == pytest.approx(120)
    assert seconds_left(running[:1], to_start=0, **options) == pytest.approx(50)
    assert seconds_left(ended, to_start=9, images=100, **options) == pytest.approx(5)
    assert seconds_left([], to_start=9, **options) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_forecast_does_not_jump_while_a_search_runs(seed: int) -> None:
    """Trials of random speeds and stops, one after another: the foreseen end of the search moves smoothly."""
    draw = random.Random(seed)
    scheduler = {"rungs": [100, 300], "reduction": 3}
    lengths = [draw.choices((100, 300, 900), weights=(6, 2, 1))[0] for _ in range(27)]
    clock, ended, foreseen = 0.0, list[TrialPace](), list[float]()
    for number, images in enumerate(lengths):
        speed = draw.uniform(0.7, 1.4)
        for part in (0.25, 0.5, 0.75, 1.0):
            now = TrialPace(round(images * part), 900, speed, 30.0, is_running=True)
            left = seconds_left(
                [*ended, now],
                to_start=len(lengths) - number - 1,
                concurrent=1,
                foreseen=expected_images(900, scheduler),
            )
            assert left is not None
            foreseen.append(clock + 30 + part * images / speed + left)
        clock += 30 + images / speed
        ended.append(TrialPace(images, 900, speed, 30.0))
    steps = [later / earlier for earlier, later in pairwise(foreseen)]
    assert min(steps) > 0.5
    assert max(steps) < 2
