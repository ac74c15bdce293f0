"""Which rows no other beats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

import pixeltune as pt
from pixeltune.errors import StoreError
from pixeltune.results.optuna_study import study
from pixeltune.results.ranking import pareto_front
from pixeltune.results.store import SearchStore
from tests.support.results import NOW, make_row, make_space, make_store

BOTH = ("valid_bits_per_dim", "sample_images_per_second")
DATA = {"data_checksum": "abc", "levels": 17, "evaluated_split": "valid"}


def row(number: int, bits: float | None, speed: float | None, status: str = "finished") -> dict[str, object]:
    columns = {"valid_bits_per_dim": bits, "sample_images_per_second": speed, "finished_at": NOW}
    return make_row(number, status=status, **DATA, **columns)


ROWS = [
    row(0, 2.0, 10.0),
    row(1, 2.0, 30.0),
    row(2, 1.5, 20.0),
    row(3, 1.4, 5.0),
    row(4, 1.9, 1.0),
    row(5, 1.5, 20.0),
    row(6, 0.5, 99.0, "pruned"),
    row(7, 0.5, None),
    row(8, 0.4, 99.0, "diverged"),
]


def test_the_front_is_what_no_finished_row_beats() -> None:
    assert [found["number"] for found in pareto_front(ROWS, BOTH)] == [3, 2, 5, 1]
    assert [found["number"] for found in pareto_front(ROWS[:5], ("valid_bits_per_dim",))] == [3]
    assert pareto_front([], BOTH) == []


def test_the_front_keeps_to_the_constraints() -> None:
    assert [found["number"] for found in pareto_front(ROWS, BOTH, {"valid_bits_per_dim": 1.45})] == [3]
    assert [found["number"] for found in pareto_front(ROWS, BOTH, {"sample_images_per_second": 20})] == [2, 5, 1]


def test_rows_of_other_images_or_unknown_names_are_refused() -> None:
    with pytest.raises(StoreError, match="must agree in data_checksum"):
        pareto_front([*ROWS, row(9, 1.0, 1.0) | {"data_checksum": "xyz"}], BOTH)
    with pytest.raises(StoreError, match="objectives must be among"):
        pareto_front(ROWS, ("accuracy",))


@pytest.mark.parametrize("seed", range(3))
def test_the_table_the_rows_and_optuna_agree(tmp_path: Path, seed: int) -> None:
    numbers = random.Random(seed)
    bounds = {"sample_images_per_second": 3.0}
    space = make_space(objectives=BOTH, scheduler=None, constraints=bounds)
    store = make_store(tmp_path, "tiny", space)
    for number in range(30):
        status = numbers.choice(["finished", "finished", "pruned", "failed"])
        store.write_trial(row(number, numbers.randrange(10) / 4, float(numbers.randrange(10)), status))
    frame = pt.pareto(pt.read_results(store.folder), BOTH, bounds)
    expected = {found["trial"] for found in pareto_front(store.trials(), BOTH, bounds)}
    assert set(frame.loc[frame["on_front"], "trial"]) == expected
    assert len(frame) == 30
    best = study(store.folder).best_trials
    assert {trial.user_attrs["trial"] for trial in best} == expected


@pytest.mark.parametrize(
    ("objectives", "constraints", "says"),
    [
        (("accuracy",), {}, "objectives must be among"),
        ("valid_bits_per_dim", {}, "objectives must be a sequence of names"),
        ((), {}, "objectives must be a sequence of names"),
        (BOTH, {"accuracy": 1.0}, "constraints must be among"),
    ],
)
def test_what_no_table_has_is_one_line(
    tmp_path: Path, objectives: Sequence[str], constraints: dict[str, float], says: str
) -> None:
    SearchStore(str(tmp_path), "s").write_trial(ROWS[0] | {"search": "s"})
    frame = pt.read_results(str(tmp_path))
    with pytest.raises(StoreError, match=says):
        pt.pareto(frame, objectives, constraints)
    with pytest.raises(StoreError, match="needs rows of read_results, but got a table without levels"):
        pt.pareto(frame.drop(columns="levels"), BOTH)
