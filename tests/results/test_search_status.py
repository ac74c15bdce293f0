"""What is left of a budget, when it ends, and when a trial is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pixeltune.results.search_status import (
    common_failure,
    count_failures,
    eta_of,
    left_of,
    read_status,
    rung_passed,
    silence_of,
)
from tests.support.toy_search import BEGUN, reported, toy_state

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


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ((), ""),
        ((("failed", "size 28"),), "size 28"),
        ((("failed", "size 28"), ("failed", "size 1.5e-3"), ("running", None), ("interrupted", "x")), "size 28"),
        ((("rejected", None), ("rejected", None)), "no reason is known"),
        ((("failed", "size 28"), ("failed", "colours 28")), ""),
        ((("failed", "size 28"), ("rejected", "size 28")), ""),
        ((("failed", "size 28"), ("pruned", None)), ""),
        ((("oom", None), ("oom", None)), ""),
    ],
)
def test_a_common_failure_is_of_all_that_ended_numbers_aside(
    reasons: tuple[tuple[str, str | None], ...], expected: str
) -> None:
    assert common_failure([{"status": status, "reason": reason} for status, reason in reasons]) == expected


def test_the_best_of_a_running_search_has_its_images(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    for message in (BEGUN, reported(100, 2.0), reported(200, 2.5)):
        state.receive(plan.trial, message)
    best = read_status(state.store).best
    assert best is not None
    assert (best["images_seen"], best["best_images_seen"], best["valid_bits_per_dim"]) == (200, 100, 2.0)
