"""The table of published sampling speeds, and ours above it."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources
from typing import Any

import pandas as pd
import pytest

from pixeltune.errors import StoreError
from pixeltune.published.compare import compare_speeds
from pixeltune.published.speeds import METHODS, PublishedSpeed, parse_speeds, published_speeds
from tests.support.results import make_row

TEXT = resources.files("pixeltune.published").joinpath("published_speeds.csv").read_text(encoding="utf-8")
SPEEDS = published_speeds()
SIZES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28), "imagenet32": (3, 32, 32), "audio": (None, None, None)}


@pytest.mark.parametrize("speed", SPEEDS, ids=lambda speed: f"{speed.model} {speed.method} {speed.batch_size}")
def test_every_row_is_of_known_words_and_sensible_numbers(speed: PublishedSpeed) -> None:
    assert (speed.image_channels, speed.image_height, speed.image_width) == SIZES[speed.dataset]
    assert speed.method in METHODS
    assert speed.seconds or speed.speedup, "a row without a number says nothing"
    assert speed.speedup is None or 1 <= speed.speedup < 1000
    assert (speed.method == "naive") <= (speed.speedup == 1)
    assert speed.seconds is None or 0.1 < speed.seconds < 3600
    assert speed.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", speed.arxiv)
    assert 2017 <= speed.year <= 2026
    assert speed.title
    assert speed.where
    assert speed.evidence in ("primary", "secondary")
    assert (speed.evidence == "secondary") == bool(speed.doubt)


def test_no_measurement_is_there_twice() -> None:
    keys = Counter((row.title, row.model, row.dataset, row.method, row.batch_size, row.device) for row in SPEEDS)
    assert [key for key, count in keys.items() if count > 1] == []


def test_a_speed_up_is_the_ratio_of_the_seconds_where_both_are_stated() -> None:
    def setting(row: PublishedSpeed) -> tuple[Any, ...]:
        return row.title, row.model, row.dataset, row.batch_size, row.device

    naive = {setting(row): row.seconds for row in SPEEDS if row.method == "naive" and row.seconds}
    timed = [row for row in SPEEDS if row.seconds and setting(row) in naive]
    assert len(timed) > len(naive)
    for row in timed:
        assert row.speedup == pytest.approx(naive[setting(row)] / (row.seconds or 0), abs=0.006)


def test_landmarks_are_as_printed() -> None:
    cached = {row.batch_size: row.speedup for row in SPEEDS if (row.arxiv, row.method) == ("1704.06001", "cached")}
    assert cached == {None: 21, 1: 2, 2: 4, 4: 6, 8: 10, 16: 18, 32: 33, 64: 61, 128: 109, 256: 183}
    (flax,) = [row for row in SPEEDS if row.title == "google/flax"]
    assert flax.images_per_second == pytest.approx(256 / 264)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("model,dataset", "name,dataset", "must have the columns"),
        (",cached,", ",caching,", "line 2 of the published speeds must have method, naive or cached"),
        (",naive,16,", ",naive,0,", "batch_size, a whole number of 1 or more, or nothing, but got '0'"),
        (",660,", ",-660,", "line 3 .* seconds, a number of 0 or more"),
        (",21,2017", ",nan,2017", "line 2 .* speedup"),
        (",abstract,", ",abstract", "as many fields as the header"),
    ],
)
def test_a_damaged_table_names_the_line(old: str, new: str, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        parse_speeds(TEXT.replace(old, new, 1))


def speed_row(number: int, speed: float | None, **columns: Any) -> dict[str, Any]:
    form = {"image_channels": 1, "image_height": 28, "image_width": 28}
    return make_row(number, **(form | {"sample_images_per_second": speed, "sample_batch_size": 16} | columns))


def test_ours_come_first_and_then_the_published_of_the_same_size() -> None:
    rows = [speed_row(0, 2.5, gpu_name="A GPU"), speed_row(1, None), speed_row(2, 3.5, status="failed")]
    table = compare_speeds(pd.DataFrame(rows))
    assert list(table["origin"]) == ["ours"] + ["published"] * len(SPEEDS)
    ours = table.iloc[0]
    assert (ours["trial"], ours["images_per_second"], ours["device"], ours["batch_size"]) == ("00000", 2.5, "A GPU", 16)
    assert pd.isna(ours["speedup"]), "no naive speed of ours is known"
    same = list(table["image_height"].iloc[1:].fillna(0) == 28)
    assert any(same)
    assert same == sorted(same, reverse=True)


@pytest.mark.parametrize(
    ("columns", "device"),
    [
        ({"gpu_name": "A GPU", "cpu_name": "A CPU", "device": "cuda"}, "A GPU"),
        ({"cpu_name": "A CPU", "device": "cpu"}, "A CPU"),
        ({"device": "cpu"}, "cpu"),
    ],
)
def test_the_device_is_named_as_far_as_it_is_known(columns: dict[str, Any], device: str) -> None:
    assert compare_speeds(pd.DataFrame([speed_row(0, 1.0, **columns)]))["device"].iloc[0] == device


def test_a_table_of_something_else_is_one_line() -> None:
    with pytest.raises(StoreError, match=r"rows of read_results.*sample_images_per_second"):
        compare_speeds(pd.DataFrame({"trial": ["00000"], "status": ["finished"]}))
