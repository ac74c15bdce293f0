"""What is left of a budget, when it ends, and when a trial is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pixeltune.results.search_status import count_failures, eta_of, left_of, rung_passed, silence_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_limit_that_ends_first_decides() -> None:
    spent = {"trials": 4, "images": 300.0, "hours": 2.0}
    left = left_of({"trials": 8, "images": 200, "hours": None}, spent)
    assert left == {"trials": 4, "images": 0.0}
    assert eta_of({"trials": 4, "images": 100}, {"trials": 2, "images": 200}, 60.0) == 30.0
    assert eta_of({"trials": 4}, {"trials": 0}, 60.0) is None
    assert eta_of({"trials": 4}, {"trials": 1}, 0.0) is None


def test_three_usual_intervals_are_late_but_never_a_minute() -> None:
    reports = [START + timedelta(seconds=seconds) for seconds in (30, 60, 90)]
    assert not silence_of(START, reports, reports[-1] + timedelta(seconds=90)).is_late
    late = silence_of(START, reports, reports[-1] + timedelta(seconds=91))
    assert (late.seconds, late.is_late) == (91.0, True)
    fast = [START + timedelta(seconds=seconds) for seconds in (1, 2, 3)]
    assert not silence_of(START, fast, fast[-1] + timedelta(seconds=60)).is_late
    assert not silence_of(START, [], START + timedelta(days=1)).is_late, "no interval is known yet"


def test_rungs_and_failures() -> None:
    assert [rung_passed((100, 200), images) for images in (99, 100, 250)] == [None, 100, 200]
    rows = [{"status": "oom", "reason": None}, {"status": "failed", "reason": "x"}, {"status": "failed", "reason": "x"}]
    expected = {"failed: x": 2, "oom: no reason is known": 1}
    assert count_failures([*rows, {"status": "finished", "reason": None}]) == expected
