"""The order of rows where it is hard: ties, missing values, refuted bits, broken bounds, running trials."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pixeltune.results.ranking import best_first, best_report, best_row, can_be_best, is_better, leaderboard
from tests.support.results import make_report, make_row

BITS = "valid_bits_per_dim"
SPEED = "sample_images_per_second"
BOUNDS = {"num_parameters": 10}


def row(number: int, bits: float | None, status: str = "finished", **columns: Any) -> dict[str, Any]:
    return make_row(number, status=status, **{BITS: bits, "num_parameters": 5} | columns)


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [found["number"] for found in rows]


def test_groups_come_before_values() -> None:
    rows = [
        row(0, 0.1, "running"),
        row(1, 0.2, num_parameters=11),
        row(2, 0.3, bits_verified=False),
        row(3, 3.0, "pruned"),
        row(4, 2.0, bits_verified=True),
        row(5, None),
        row(6, 0.1, "failed", num_parameters=11),
    ]
    assert numbers(best_first(rows, BITS, BOUNDS)) == [4, 3, 5, 2, 1, 0, 6]
    assert numbers(best_first(rows, BITS, BOUNDS, on_front={"00003"})) == [3, 4, 5, 2, 1, 0, 6]
    assert numbers(best_first(rows, BITS, BOUNDS, by_value_alone=True)) == [0, 6, 1, 2, 4, 3, 5]


def test_more_is_better_where_a_metric_is_maximised() -> None:
    rows = [row(0, 1.0, **{SPEED: 1.0}), row(1, 2.0, **{SPEED: 3.0}), row(2, 3.0, **{SPEED: None})]
    assert numbers(best_first(rows, SPEED)) == [1, 0, 2]
    best = best_row(rows, SPEED)
    assert best is not None
    assert best["number"] == 1


def test_ties_are_ordered_by_name_or_stay() -> None:
    rows = [row(3, 1.0, search="a"), row(1, 1.0, search="b"), row(2, 1.0, search="a")]
    assert numbers(best_first(rows, BITS)) == [1, 2, 3]
    assert numbers(best_first(rows, BITS, ties=())) == [3, 1, 2]
    assert numbers(best_first(rows, BITS, ties=("search", "trial"))) == [2, 3, 1]
    best = best_row(rows, BITS)
    assert best is not None
    assert best["number"] == 3, "the first of equal ones"


def test_what_is_no_number_is_last_and_has_no_rank() -> None:
    rows = [row(0, math.nan), row(1, 5.0), row(2, None)]
    assert numbers(best_first(rows, BITS)) == [1, 0, 2]
    assert [place["trial"] for place in leaderboard(rows)] == ["00001"]
    best = best_row(rows, BITS)
    assert best is not None
    assert best["number"] == 1
    assert best_row([rows[0], rows[2]], BITS) is None
    assert best_row([], BITS) is None


@pytest.mark.parametrize(
    ("columns", "able"),
    [
        ({"num_parameters": 10}, True),
        ({"num_parameters": 11}, False),
        ({"num_parameters": None}, True),
        ({"bits_verified": True}, True),
        ({"bits_verified": False}, False),
    ],
)
def test_a_running_trial_counts_as_far_as_it_is_known(columns: dict[str, Any], able: bool) -> None:
    """An ended one whose bounded metric is missing does not."""
    running = row(0, 1.0, "running", **columns)
    assert (best_row([running, row(1, 2.0)], BITS, BOUNDS) == running) is able
    assert not can_be_best(running, (BITS,), BOUNDS), "it is not finished"
    is_known = columns.get("num_parameters", 5) is not None
    assert can_be_best(row(0, 1.0, **columns), (BITS,), BOUNDS) is (able and is_known)


@pytest.mark.parametrize("status", ["failed", "diverged", "oom", "rejected", "interrupted"])
def test_what_did_not_get_through_is_never_the_best(status: str) -> None:
    assert best_row([row(0, 0.1, status)], BITS) is None


def test_the_number_of_record_of_a_final_is_the_test_number() -> None:
    rows = [
        row(0, 1.0, evaluated_split="test", test_bits_per_dim=3.0),
        row(1, 2.0, evaluated_split="test", test_bits_per_dim=2.5),
    ]
    assert numbers(best_first(rows, "bits_per_dim")) == [1, 0]
    assert numbers(best_first(rows, BITS)) == [0, 1]


def test_losses_beat_others_only_if_none_is_worse() -> None:
    assert is_better((1.0, 2.0), (1.0, 3.0))
    assert not is_better((1.0, 2.0), (1.0, 2.0))
    assert not is_better((1.0, 4.0), (2.0, 3.0))


def test_the_best_report_is_the_first_of_the_lowest() -> None:
    reports = [make_report(100, 2.0), make_report(200, 1.0), make_report(300, 1.0), make_report(400) | {BITS: None}]
    best = best_report(reports, BITS)
    assert best is not None
    assert best["images_seen"] == 200
    assert best_report(reports[3:], BITS) is None
