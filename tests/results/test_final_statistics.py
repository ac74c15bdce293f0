"""Means over seeds, differences beside their noise, and the files of nats behind them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.errors import StoreError
from pixeltune.published.nearest import comparison, comparison_lines
from pixeltune.results.dataframes import read_final, read_images
from pixeltune.results.final_statistics import (
    LEVEL,
    Difference,
    difference,
    final_leaderboard,
    leaderboard_of,
    mean,
    mean_row,
    read_nats,
    write_images,
)
from pixeltune.results.store import SearchStore
from tests.support.report_pages import make_final
from tests.support.results import make_row

CIFAR = {"image_channels": 3, "image_height": 32, "image_width": 32, "levels": 256, "data.name": "cifar10"}


def crossed(
    rng: np.random.Generator, seeds: int, images: int, *, by_seed: float, by_image: float, by_both: float
) -> np.ndarray:
    """Nats of one configuration whose true mean is 100, (M, N), float32 numbers as evaluation gives them."""
    seed_M1, image_N, both_MN = rng.normal(size=(seeds, 1)), rng.normal(size=images), rng.normal(size=(seeds, images))
    return np.float32(100 + by_seed * seed_M1 + by_image * image_N + by_both * both_MN).astype(np.float64)


def test_a_mean_has_the_errors_of_its_formula() -> None:
    nats_MN = crossed(np.random.default_rng(1), 3, 50, by_seed=1.0, by_image=5.0, by_both=2.0)
    found = mean(nats_MN)
    assert found.value == pytest.approx(nats_MN.mean(), rel=1e-12)
    assert found.seeds_error == pytest.approx(np.std(nats_MN.mean(axis=1), ddof=1) / math.sqrt(3))
    assert found.images_error == pytest.approx(np.std(nats_MN.mean(axis=0), ddof=1) / math.sqrt(50))
    assert found.error == pytest.approx(math.hypot(found.seeds_error or 0, found.images_error or 0))


def test_what_makes_images_hard_for_all_is_no_noise_of_a_difference() -> None:
    rng = np.random.default_rng(2)
    hard_N = 50 * rng.normal(size=500)
    one, other = (crossed(rng, 3, 500, by_seed=0.1, by_image=0.5, by_both=0.5) for _ in range(2))
    plain, with_hard = difference(one, other), difference(one + hard_N, other + hard_N)
    assert with_hard.images_error == pytest.approx(plain.images_error, rel=1e-6)
    assert mean(one + hard_N).images_error > 10 * plain.images_error


NOISES = {
    "seeds": {"by_seed": 0.3, "by_image": 1.0, "by_both": 0.0},
    "images": {"by_seed": 0.0, "by_image": 1.0, "by_both": 0.0},
    "both": {"by_seed": 0.1, "by_image": 1.0, "by_both": 1.0},
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_noise_is_seldom_called_a_difference(seeds: int, noise: str) -> None:
    """Of 400 pairs that do not differ, 5% would be 20; their number is binomial with a spread of 4.4."""
    rng = np.random.default_rng(seeds)
    wrong = sum(
        abs(apart.value) > (apart.half_width or 0)
        for apart in (
            difference(*(crossed(rng, seeds, 200, **NOISES[noise]) for _ in range(2)), level=0.05) for _ in range(400)
        )
    )
    assert wrong <= 20 + 3 * 4.4


def test_images_alone_would_call_it_one() -> None:
    """What the seeds add is no detail: the same pairs, judged by the noise of images only."""
    rng = np.random.default_rng(3)
    found = [difference(*(crossed(rng, 3, 200, **NOISES["seeds"]) for _ in range(2))) for _ in range(400)]
    assert np.mean([abs(apart.value) > 1.97 * (apart.images_error or 0) for apart in found]) > 0.4


def test_a_difference_is_seen() -> None:
    rng = np.random.default_rng(4)
    found = [difference(crossed(rng, 3, 200, **NOISES["both"]) + 2, crossed(rng, 3, 200, **NOISES["both"]))]
    assert all(apart.value > (apart.half_width or math.inf) for apart in found)


def runs_of(nats: dict[str, np.ndarray], **columns: Any) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows and nats of finished runs: all configurations of the first seed, then of the next."""
    rows, by_run = [], {}
    seeds = max(len(nats_MN) for nats_MN in nats.values())
    for seed in range(seeds):
        for trial, nats_MN in nats.items():
            if seed < len(nats_MN):
                nats_N = nats_MN[seed]
                value = math.fsum(nats_N) / len(nats_N)
                row = make_row(
                    len(rows),
                    search="s-final",
                    from_search="s",
                    from_trial=trial,
                    evaluated_split="test",
                    data_checksum="abc",
                    data_version="original",
                    is_bound=False,
                    test_nats=value,
                    test_bits_per_dim=value / (3072 * math.log(2)),
                    **(CIFAR | columns),
                )
                rows.append(row)
                by_run[row["trial"]] = nats_N
    return rows, by_run


def test_a_leaderboard_ranks_means_and_calls_noise_noise() -> None:
    rng = np.random.default_rng(5)
    noise = {"by_seed": 0.2, "by_image": 1.0, "by_both": 0.5}
    base = crossed(rng, 3, 300, **noise)
    rows, nats = runs_of({"00007": base, "00002": crossed(rng, 3, 300, **noise) + 9, "00004": base[::-1] + 0.01})
    first, near, far = final_leaderboard(rows, nats)
    assert [place["from_trial"] for place in (first, near, far)] == ["00007", "00004", "00002"]
    assert [place["verdict"] for place in (first, near, far)] == ["lowest mean", "within noise", "clearly worse"]
    assert (first["seeds"], first["runs"]) == (3, ["00000", "00003", "00006"])
    assert first["nats"] == pytest.approx(base.mean(), rel=1e-12)
    assert first["bits_per_dim"] == pytest.approx(base.mean() / (3072 * math.log(2)), rel=1e-12)
    assert near["difference_nats"] == pytest.approx(0.01, rel=1e-6)
    assert far["difference_bits_per_dim_half_width"] < far["difference_bits_per_dim"]


def test_more_configurations_widen_the_intervals() -> None:
    """The lowest of many is low by chance as well."""
    rng = np.random.default_rng(6)
    nats = {f"{number:05d}": crossed(rng, 3, 100, **NOISES["both"]) + number for number in range(4)}
    two = final_leaderboard(*runs_of(dict(list(nats.items())[:2])))
    four = final_leaderboard(*runs_of(nats))
    assert four[1]["difference_nats"] == two[1]["difference_nats"]
    for board, pairs in ((two, 1), (four, 6)):
        apart = difference(nats["00001"], nats["00000"], level=LEVEL / pairs)
        assert board[1]["difference_nats_half_width"] == apart.half_width
    assert four[1]["difference_nats_half_width"] > 1.2 * two[1]["difference_nats_half_width"]


def test_one_seed_says_nothing_of_its_noise() -> None:
    nats = np.full((1, 50), 100.0) + np.arange(50)
    for other in (nats + 50, np.concatenate([nats + 50, nats + 51])):
        first, second = final_leaderboard(*runs_of({"00000": nats, "00001": other}))
        assert second["verdict"] == Difference.UNKNOWN
        assert first["nats_seeds_error"] is None
        assert first["nats_error"] is None


def test_runs_that_did_not_finish_do_not_count() -> None:
    rng = np.random.default_rng(7)
    rows, nats = runs_of({"00000": crossed(rng, 3, 20, **NOISES["both"])})
    rows[1]["status"] = "failed"
    (place,) = final_leaderboard(rows, nats)
    assert (place["seeds"], place["runs"]) == (2, ["00000", "00002"])
    assert final_leaderboard([row | {"status": "oom"} for row in rows], nats) == []


def test_runs_of_other_images_are_not_ranked_together() -> None:
    rows, nats = runs_of({"00000": np.ones((2, 5))})
    with pytest.raises(StoreError, match="agree in data_checksum, but got abc, xyz"):
        final_leaderboard([rows[0], rows[1] | {"data_checksum": "xyz"}], nats)


def test_the_mean_compares_with_a_published_number_and_a_search_does_not() -> None:
    """On images that are told to be the published set."""
    rng = np.random.default_rng(8)
    nats = crossed(rng, 2, 40, by_seed=1.0, by_image=50.0, by_both=1.0) + 6150
    rows, by_run = runs_of({"00003": nats})
    (place,) = final_leaderboard(rows, by_run)
    row = mean_row(place, rows)
    besides = {beside.published.model: beside for beside in comparison(row, limit=99)}
    assert besides["PixelCNN++"].comparable
    assert besides["PixelCNN++"].ours == place["bits_per_dim"]
    assert besides["PixelCNN++"].gap == place["bits_per_dim"] - 2.92
    said = comparison_lines(row, name="s/00003, mean of 2 seeds,")
    assert said[0].startswith("Compared with published results: s/00003, mean of 2 seeds, with ")
    assert said[0].endswith("bits/dim (test).")
    assert all(": comparable" in line for line in said[1:])
    for change in ({"evaluated_split": "valid", "valid_bits_per_dim": 2.9}, {"data.name": "array"}, {"levels": 17}):
        assert not any(beside.comparable for beside in comparison(row | change, limit=99))


def stored(folder: Path) -> tuple[SearchStore, list[dict[str, Any]], dict[str, np.ndarray]]:
    store = SearchStore(str(folder), "s-final")
    rows, nats = runs_of({"00003": crossed(np.random.default_rng(9), 2, 25, by_seed=1.0, by_image=9.0, by_both=1.0)})
    for row in rows:
        store.write_trial(row)
        labels_N = np.arange(25) % 4
        run = {"search": "s-final", "trial": row["trial"], "attempt": 1}
        write_images(store.images(row["trial"]), nats[row["trial"]], labels_N, is_bound=False, **run)
    return store, rows, nats


def test_images_come_back_as_a_tidy_frame_whose_sum_is_the_row_s_number(tmp_path: Path) -> None:
    store, rows, nats = stored(tmp_path)
    for location in (store.folder, str(tmp_path)):
        frame = read_images(location)
        assert list(frame["trial"].unique()) == ["00000", "00001"]
        assert frame["image"].tolist() == [*range(25)] * 2
        assert frame["label"].tolist() == [*(np.arange(25) % 4)] * 2
        assert not frame["is_bound"].any()
        for row in rows:
            part = frame[frame["trial"] == row["trial"]]["nats"]
            assert math.fsum(part) / len(part) == row["test_nats"]
            assert sum(part.tolist()) / len(part) == row["test_nats"], "in image order"
            assert np.array_equal(part.to_numpy(), nats[row["trial"]])
    assert leaderboard_of(store) == final_leaderboard(rows, nats)


def test_nats_that_are_missing_or_of_another_run_are_refused(tmp_path: Path) -> None:
    store, _, nats = stored(tmp_path)
    run = {"is_bound": False, "search": "s-final", "trial": "00001", "attempt": 1}
    write_images(store.images("00001"), nats["00000"], None, **run)
    with pytest.raises(StoreError, match=r"00001\.parquet is of another run"):
        leaderboard_of(store)
    whole = Path(store.images("00001")).read_bytes()
    for length in (len(whole) - 1, 100, 0):
        Path(store.images("00001")).write_bytes(whole[:length])
        with pytest.raises(StoreError, match="must be readable"):
            read_nats(store.images("00001"))
    Path(store.images("00001")).unlink()
    with pytest.raises(StoreError, match=r"there is no .*00001\.parquet"):
        leaderboard_of(store)


def test_what_is_not_finite_is_not_stored(tmp_path: Path) -> None:
    run = {"is_bound": False, "search": "s", "trial": "00001", "attempt": 1}
    with pytest.raises(StoreError, match="must be a finite number"):
        write_images(str(tmp_path / "x.parquet"), np.array([1.0, np.inf]), None, **run)
    assert not (tmp_path / "x.parquet").exists()


def test_a_bound_is_marked_and_never_clearly_worse_than_an_exact_number() -> None:
    """Its likelihood may be below the number, and so below the other; above an exact one that is below the bound."""
    nats = {
        f"{number:05d}": np.random.default_rng(number).normal(size=50) * 0.01 + (100 if number < 3 else 120)
        for number in range(6)
    }
    for lower_is_bound, higher_is_bound, verdict in (
        (False, True, Difference.BOUND),
        (True, False, Difference.CLEARLY_WORSE),
        (True, True, Difference.CLEARLY_WORSE),
    ):
        rows = [
            make_row(
                number,
                **CIFAR,
                from_trial="abc"[number // 3],
                is_bound=lower_is_bound if number < 3 else higher_is_bound,
            )
            | {"search": "s-final", "from_search": "s", "data_checksum": "x", "evaluated_split": "test"}
            for number in range(6)
        ]
        lower, higher = final_leaderboard(rows, nats)
        assert (lower["is_bound"], higher["is_bound"]) == (lower_is_bound, higher_is_bound)
        assert higher["verdict"] == verdict


@pytest.mark.parametrize("means", [{"00001": 80.0}, {"00001": 80.0, "00002": 81.0}])
def test_errors_that_one_seed_cannot_tell_are_missing_numbers(tmp_path: Path, means: dict[str, float]) -> None:
    frame = read_final(make_final(tmp_path, means, seeds=1).store.folder)
    errors = frame.filter(regex="_error$|_half_width$")
    assert set(errors.dtypes) == {np.dtype("float64")}
    assert errors["bits_per_dim_seeds_error"].isna().all()
    assert (frame["nats"] - 2 * frame["nats_error"]).isna().all()
