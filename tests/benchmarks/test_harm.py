"""The check of the fault suite finds what it looks for: a whole search, and the same one spoilt in each way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pixeltune.results.parquet_io import Row
from pixeltune.results.store import SearchStore
from tests.support.harm import Before, Harm, count_harm
from tests.support.noop import drive, noop_space

SPACE = noop_space(trials=3, images=400, stop=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    drive(SPACE, str(folder))
    return folder


def _harm(store: SearchStore, before: Before | None = None) -> dict[str, int]:
    harm = Harm()
    count_harm(harm, store, SPACE, before=before or Before([], []))
    return {kind: count for kind, count in vars(harm).items() if kind not in ("words", "seconds") and count}


def _row(store: SearchStore, name: str, **changes: object) -> Row:
    return next(row for row in store.attempts() if row["trial"] == name) | changes


def _lose_a_trial(store: SearchStore) -> None:
    Path(store.trials_folder, "00002-1.parquet").unlink()


def _leave_one_running(store: SearchStore) -> None:
    store.write_trial(_row(store, "00001", status="running"))


def _run_one_twice(store: SearchStore) -> None:
    store.write_trial(_row(store, "00001", attempt=2))


def _run_one_too_many(store: SearchStore) -> None:
    store.write_trial(_row(store, "00001", trial="00003", number=3))
    store.write_curve("00003", 1, store.curve("00001"))


def _skip_an_attempt(store: SearchStore) -> None:
    store.write_trial(_row(store, "00001", attempt=3))
    store.write_trial(_row(store, "00001", status="interrupted"))


def _lose_a_report(store: SearchStore) -> None:
    store.write_curve("00000", 1, store.curve("00000")[1:])


def _report_twice(store: SearchStore) -> None:
    store.write_curve("00000", 2, store.curve("00000")[3:])


def _report_beyond(store: SearchStore) -> None:
    store.write_curve("00000", 1, [*store.curve("00000"), store.curve("00000")[-1] | {"images_seen": 500}])


def _change_a_report(store: SearchStore) -> None:
    first, *others = store.curve("00000")
    store.write_curve("00000", 1, [first | {"valid_bits_per_dim": 9.0}, *others])


def _change_a_number(store: SearchStore) -> None:
    store.write_trial(_row(store, "00000", valid_bits_per_dim=0.5))


def _spoil_a_file(store: SearchStore) -> None:
    row = _row(store, "00000")
    Path(store.trials_folder, "00000-1.parquet").write_bytes(b"half")
    with pytest.warns(UserWarning, match="left out"):
        store.attempts()
    store.write_trial(row)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda _store: None, {}),
        (_lose_a_trial, {"rows_lost": 1}),
        (_leave_one_running, {"rows_lost": 2}),  # without an end, and not finished
        (_run_one_twice, {"rows_doubled": 1}),
        (_run_one_too_many, {"rows_doubled": 1}),
        (_skip_an_attempt, {"rows_lost": 1}),
        (_lose_a_report, {"reports_lost": 1}),
        (_report_twice, {"reports_doubled": 1}),
        (_report_beyond, {"reports_doubled": 1, "wrong": 2}),
        (_change_a_report, {"wrong": 1}),
        (_change_a_number, {"wrong": 1}),
        (_spoil_a_file, {"other": 1}),
    ],
)
def test_each_harm_is_found(
    spoil: Callable[[SearchStore], None], found: dict[str, int], whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "r")
    store = SearchStore(str(tmp_path / "r"), "noop")
    spoil(store)
    assert _harm(store) == found


def test_what_had_ended_before_the_fault_must_stay(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "r")
    store = SearchStore(str(tmp_path / "r"), "noop")
    before = Before.of(store)
    assert _harm(store, before) == {}
    store.write_trial(_row(store, "00000", gpu_seconds=7.0))
    first, *others = store.curve("00001")
    store.write_curve("00001", 1, [first | {"lr": 0.5}, *others])
    assert _harm(store, before) == {"rows_lost": 1, "reports_lost": 1}
