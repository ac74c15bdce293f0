"""When a target is reached, and how many trials in a row brought no improvement: from rows in any order."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pixeltune.results.budget_aims import first_at_target, trials_without_improvement

BITS = "valid_bits_per_dim"
SPEED = "sample_images_per_second"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, value: float | None, status: str = "finished", *, metric: str = BITS, **columns: Any) -> Any:
    """Trial `number`, which ended `number` minutes after the first."""
    times = {"started_at": BEGAN, "finished_at": BEGAN + timedelta(minutes=number)}
    return {"trial": f"{number:05d}", "number": number, "status": status, metric: value, **times, **columns}


@pytest.mark.parametrize("status", ["pruned", "stopped", "diverged", "oom", "failed", "rejected", "running"])
def test_only_finished_trials_reach_a_target(status: str) -> None:
    rows = [row(0, 3.0), row(1, 1.0, status)]
    assert first_at_target(rows, BITS, 2.0) is None
    assert trials_without_improvement(rows, BITS) == 0


@pytest.mark.parametrize(
    "columns", [{"bits_verified": False}, {"num_parameters": 101}, {"num_parameters": None}], ids=str
)
def test_trials_that_cannot_be_the_best_reach_no_target_and_improve_nothing(columns: dict[str, Any]) -> None:
    rows = [row(0, 3.0, num_parameters=5), row(1, 1.0, **({"num_parameters": 5} | columns))]
    bounds = {"num_parameters": 100.0}
    assert first_at_target(rows, BITS, 2.0, bounds) is None
    assert trials_without_improvement(rows, BITS, 0.0, bounds) == 1


@pytest.mark.parametrize(("value", "reached"), [(1.99, True), (2.0, True), (2.01, False), (None, False)])
def test_a_target_is_reached_at_its_value(value: float | None, reached: bool) -> None:
    assert (first_at_target([row(0, value)], BITS, 2.0) is not None) == reached


def test_a_maximised_objective_reaches_its_target_from_below() -> None:
    rows = [row(0, 9.0, metric=SPEED), row(1, 10.0, metric=SPEED)]
    found = first_at_target(rows, SPEED, 10.0)
    assert found is not None
    assert found["trial"] == "00001"
    assert trials_without_improvement(rows, SPEED) == 0
    assert trials_without_improvement([*rows, row(2, 9.5, metric=SPEED)], SPEED) == 1


def test_the_first_to_end_reached_the_target_and_not_the_best() -> None:
    found = first_at_target([row(2, 1.0), row(1, 1.9)], BITS, 2.0)
    assert found is not None
    assert found["trial"] == "00001"


@pytest.mark.parametrize(
    ("values", "min_delta", "count"),
    [
        ([], 0.0, 0),
        ([3.0], 0.0, 0),
        ([3.0, 3.0], 0.0, 1),
        ([3.0, 2.9, 2.95, 2.9], 0.0, 2),
        ([3.0, 2.9], 0.2, 1),
        ([3.0, 2.75], 0.25, 0),
        ([3.0, 2.9, 2.8, 2.7], 0.25, 0),
        ([3.0, 2.9, 2.8, 2.7, 2.6], 0.25, 1),
        ([None, None], 0.0, 2),
        ([None, 3.0], 0.0, 0),
    ],
)
def test_trials_in_a_row_without_an_improvement(values: list[float | None], min_delta: float, count: int) -> None:
    """Small steps add up: the last improvement is what the next one is measured from."""
    rows = [row(number, value) for number, value in enumerate(values)]
    assert trials_without_improvement(rows, BITS, min_delta) == count


def test_the_order_of_the_rows_does_not_matter() -> None:
    draw = random.Random(0)
    for _ in range(200):
        statuses = ["finished", "finished", "pruned", "stopped", "failed"]
        rows = [row(number, draw.choice([1.0, 1.5, 2.0]), draw.choice(statuses)) for number in range(8)]
        shuffled = draw.sample(rows, len(rows))
        assert trials_without_improvement(shuffled, BITS, 0.5) == trials_without_improvement(rows, BITS, 0.5)
        assert first_at_target(shuffled, BITS, 1.5) == first_at_target(rows, BITS, 1.5)
