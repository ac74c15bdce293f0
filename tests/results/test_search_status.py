"""What is left of a budget, when it ends, and when a trial is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pixeltune.errors import StoreError
from pixeltune.results.search_status import (
    common_failure,
    count_failures,
    left_of,
    read_status,
    rung_passed,
    silence_of,
)
from pixeltune.search.state import SearchState
from pixeltune.space import Budget
from tests.support.toy_search import BEGUN, reported, toy_space, toy_state

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_is_left_of_the_limits_that_are_set() -> None:
    spent = {"trials": 4, "images": 300.0, "hours": 2.0}
    left = left_of({"trials": 8, "images": 200, "hours": None}, spent)
    assert left == {"trials": 4, "images": 0.0}


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


PROGRESS = {"progress": {"images_seen": 150, "images_per_second": 10.0, "train_bits_per_dim": 2.25}}


def test_other_shells_see_where_a_trial_is_between_its_reports(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    for message in (BEGUN, reported(100, 2.0), PROGRESS):
        assert state.receive(plan.trial, message) is None
    state.write_progress()
    (running,) = read_status(state.store).running
    assert (running.images_seen, running.images_per_second, running.train_bits_per_dim) == (150, 10.0, 2.25)
    assert running.bits_per_dim == 2.0
    state.receive(plan.trial, reported(200, 1.9))
    (running,) = read_status(state.store).running
    assert (running.images_seen, running.images_per_second) == (200, 100.0), "a report is newer than the file"


def test_progress_of_an_earlier_attempt_or_a_damaged_file_is_not_shown(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    for message in (BEGUN, PROGRESS):
        state.receive(plan.trial, message)
    state.write_progress()
    state.retry(plan.trial, "crashed")
    (running,) = read_status(state.store).running
    assert (running.attempt, running.images_seen, running.images_per_second) == (2, 0, None)
    Path(state.store.folder, "progress.json").write_text("{", encoding="utf-8")
    assert state.store.progress() == {}
    assert len(read_status(state.store).running) == 1


def test_progress_that_cannot_be_written_ends_no_search(tmp_path: Path) -> None:
    state = toy_state(tmp_path)
    plan = state.plan({})
    state.start(plan, state.space.resources)
    for message in (BEGUN, PROGRESS):
        state.receive(plan.trial, message)
    Path(state.store.folder, "progress.json").mkdir()
    with pytest.raises((StoreError, OSError)):
        state.store.write_progress({})
    state.write_progress()
    state.receive(plan.trial, reported(100, 2.0))


def test_the_time_left_is_known_from_the_first_progress_on(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None, budget=Budget(trials=3)))
    plan = state.plan({})
    state.start(plan, state.space.resources)
    assert _eta(state) is None
    state.receive(plan.trial, PROGRESS)
    eta = _eta(state)
    assert eta is not None
    assert 100 < eta < 150, "250 images of this trial and 400 of each other, at 10 images/s"


def _eta(state: SearchState) -> float | None:
    state.write_progress()
    state.store.write_launch({"budget": {"trials": 3}, "concurrent": 1, "started_at": START.isoformat()})
    with state.store.lock():
        return read_status(state.store).eta_seconds
