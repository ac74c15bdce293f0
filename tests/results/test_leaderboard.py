from __future__ import annotations

import pytest

from pixeltune.errors import StoreError
from pixeltune.published.nearest import comparison, comparison_lines
from pixeltune.results.ranking import leaderboard, status_counts
from tests.support.results import make_row

DATA = {
    "data_version": "original",
    "data_checksum": "abc",
    "levels": 17,
    "evaluated_split": "valid",
    "baseline_bits_per_dim": 4.0,
}


def ranked_row(number: int, bits: float | None, status: str = "finished", **columns: object) -> dict[str, object]:
    return make_row(number, status=status, valid_bits_per_dim=bits, **(DATA | columns))


def test_the_best_comes_first_with_status_keys_and_cost() -> None:
    rows = [
        ranked_row(0, 3.0, **{"optim.lr": 0.1}),
        ranked_row(1, 2.0, "pruned", **{"optim.lr": 0.2, "train_seconds": 3.0, "eval_seconds": 1.0}),
        ranked_row(2, 2.5),
    ]
    board = leaderboard(rows)
    assert [(row["rank"], row["trial"], row["status"]) for row in board] == [
        (1, "00001", "pruned"),
        (2, "00002", "finished"),
        (3, "00000", "finished"),
    ]
    assert board[0]["below_baseline_percent"] == 50.0
    assert board[0]["seconds"] == 4.0
    assert [key for key in board[0] if "." in key] == ["optim.lr"]
    assert len(leaderboard(rows, top=2)) == 2


@pytest.mark.parametrize("status", ["rejected", "diverged", "oom", "failed", "interrupted", "running"])
def test_what_is_no_result_is_never_ranked(status: str) -> None:
    assert [row["trial"] for row in leaderboard([ranked_row(0, 3.0), ranked_row(1, 0.1, status)])] == ["00000"]


def test_a_row_without_the_objective_is_not_ranked() -> None:
    assert leaderboard([ranked_row(0, None)]) == []
    assert leaderboard([]) == []


@pytest.mark.parametrize("column", ["data_checksum", "evaluated_split", "levels"])
def test_rows_of_different_data_split_or_levels_are_not_ranked_together(column: str) -> None:
    other = {"data_checksum": "xyz", "evaluated_split": "test", "levels": 2}[column]
    with pytest.raises(StoreError, match=f"must agree in {column}, but got"):
        leaderboard([ranked_row(0, 3.0), ranked_row(1, 2.0, **{column: other})])
    leaderboard([ranked_row(0, 3.0), ranked_row(1, 2.0, "failed", **{column: other})])


def test_the_keys_that_are_shown_can_be_given() -> None:
    [row] = leaderboard([ranked_row(0, 3.0)], vary=["model.layers"])
    assert row["model.layers"] == 20


def test_another_objective_ranks_and_an_unknown_one_is_refused() -> None:
    rows = [ranked_row(0, 2.0, num_parameters=9), ranked_row(1, 3.0, num_parameters=5)]
    assert [row["trial"] for row in leaderboard(rows, "num_parameters")] == ["00001", "00000"]
    speeds = [ranked_row(number, 2.0, sample_images_per_second=1.0 + number) for number in range(2)]
    assert [row["trial"] for row in leaderboard(speeds, "sample_images_per_second")] == ["00001", "00000"]
    with pytest.raises(StoreError, match="objective must be among"):
        leaderboard(rows, "accuracy")


def test_rows_out_of_bounds_come_last_without_a_rank_and_say_why() -> None:
    rows = [
        ranked_row(0, 3.0, gpu_seconds=10.0, num_parameters=5),
        ranked_row(1, 2.0, gpu_seconds=99.0, num_parameters=1_000_000),
        ranked_row(2, 2.5, "pruned", gpu_seconds=20.0),
    ]
    board = leaderboard(rows, constraints={"gpu_seconds": 20, "num_parameters": 10})
    assert [(row["rank"], row["trial"], row["out_of_bounds"]) for row in board] == [
        (1, "00000", None),
        (None, "00001", "gpu_seconds 99 above 20; num_parameters 1,000,000 above 10"),
        (None, "00002", "num_parameters unknown"),
    ]
    speeds = [ranked_row(0, 3.0, sample_images_per_second=2.0)]
    [row] = leaderboard(speeds, constraints={"sample_images_per_second": 2.5})
    assert row["out_of_bounds"] == "sample_images_per_second 2 below 2.5"


def test_statuses_are_counted() -> None:
    rows = [ranked_row(0, 2.0), ranked_row(1, 2.0, "pruned"), ranked_row(2, 2.0, "pruned")]
    assert status_counts(rows) == {"pruned": 2, "finished": 1}


def test_the_end_of_a_search_says_whether_published_numbers_compare() -> None:
    form = {"data.name": "mnist", "data.binarise": "static", "levels": 2, "image_channels": 1}
    row = ranked_row(3, 0.15, valid_nats=83.0, **form, image_height=28, image_width=28, is_bound=False)
    first, *lines = comparison_lines(row, limit=3)
    assert "trial 00003 with 83 nats (validation); not comparable: validation, not test; other draw" in first
    assert len(lines) == 3
    assert "79.2" in lines[0]
    assert "+3.800" in lines[0]
    assert comparison(row, limit=1)[0].gap == pytest.approx(3.8)


def test_a_reason_of_one_result_alone_stands_in_its_line() -> None:
    form = {"data.name": "cifar10", "levels": 256, "image_channels": 3, "image_height": 32, "image_width": 32}
    row = ranked_row(3, 2.9, **form, test_bits_per_dim=2.9, is_bound=False) | {"evaluated_split": "test"}
    first, *lines = comparison_lines(row, limit=60)
    assert "not comparable" not in first
    assert any(line.endswith("PixelCNN++ (2017, arXiv 1701.05517): comparable") for line in lines)
    assert any("Combiner-Axial" in line and "caveat: augmentation not stated" in line for line in lines)
    assert any(line.endswith("not comparable: published is class-conditional") for line in lines)


def test_another_task_stands_there_without_a_gap() -> None:
    form = {"data.name": "cifar10", "levels": 16, "image_channels": 3, "image_height": 32, "image_width": 32}
    row = ranked_row(3, 0.7, **form, is_bound=False)
    assert {beside.gap for beside in comparison(row)} == {None}
    first, *lines = comparison_lines(row)
    assert "16 levels, not 256" in first
    assert len(lines) == 6
    assert not any("None" in line or "+" in line.split()[1] or "-0" in line for line in lines)


def test_data_without_published_results_says_so() -> None:
    assert comparison_lines(ranked_row(0, 2.0)) == [
        "No published results for digits; the order-0 baseline is the yardstick."
    ]
