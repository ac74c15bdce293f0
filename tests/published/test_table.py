from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import pytest

from pixeltune.errors import StoreError
from pixeltune.published.compare import load_published
from pixeltune.published.table import Exactness, PublishedResult, parse_published, published_results

TEXT = resources.files("pixeltune.published").joinpath("published.csv").read_text(encoding="utf-8")
RESULTS = published_results()
SIZES = {"cifar10": 32, "mnist": 28, "omniglot": 28, "celeba64": 64}
SIZES |= {f"imagenet{size}": size for size in (32, 64, 128, 256, 640)}
SIZES |= {f"lsun_{scene}64": 64 for scene in ("bedroom", "tower", "church")}
RANGES = {("mnist", "nats"): (75.0, 100.0), ("omniglot", "nats"): (85.0, 110.0), ("mnist", "bits_per_dim"): (0.5, 2.0)}
"""Plausible values; bits/dim of colour images are between 1.5 and the 8 of a uniform distribution."""


every_row = pytest.mark.parametrize("result", RESULTS, ids=lambda row: f"{row.dataset} {row.model} {row.split}")


@every_row
def test_every_row_is_of_known_words_and_sensible_numbers(result: PublishedResult) -> None:
    assert (result.image_height, result.image_width) == (SIZES[result.dataset],) * 2
    assert result.version in (("old", "new", "unclear") if result.dataset.startswith("imagenet") else (None,))
    assert (result.binarisation == "none") == (result.levels == 256)
    assert result.binarisation in ("none", "static", "dynamic", "unclear")
    assert result.levels == (256 if result.metric == "bits_per_dim" else 2)
    assert result.split in ("train", "valid", "test")
    assert result.metric in ("bits_per_dim", "nats")
    least, most = RANGES.get((result.dataset, result.metric), (1.5, 8.0))
    assert least < result.value <= most
    assert isinstance(result.likelihood, Exactness)
    assert result.params_million is None or 0 <= result.params_million < 10_000
    assert 2009 <= result.year <= 2026
    assert result.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", result.arxiv)
    assert result.evidence in ("primary", "secondary")
    assert result.title
    assert result.where
    assert result.model


def test_no_result_is_there_twice() -> None:
    named = Counter((row.dataset, row.version, row.binarisation, row.split, row.model, row.metric) for row in RESULTS)
    assert [key for key, count in named.items() if count > 1] == []


@every_row
def test_another_papers_number_that_was_not_checked_says_where_it_is_cited(result: PublishedResult) -> None:
    for words in ("as cited in", "as listed by"):
        if result.doubt and words in result.doubt:
            assert result.evidence == "secondary"
            assert result.doubt.partition(words)[2].split(":")[0].split(";")[0].strip() in result.where


def test_an_upper_limit_is_no_value() -> None:
    limits = [row for row in RESULTS if row.upper_limit]
    assert [(row.model, row.value, row.split) for row in limits] == [
        ("PixelCNN++ no dropout (train split)", 2.0, "train")
    ]
    assert "below" in (limits[0].likelihood_detail or "")


def test_one_title_and_year_for_one_arxiv_number() -> None:
    years = {(row.arxiv, row.year) for row in RESULTS if row.arxiv}
    assert len(years) == len({arxiv for arxiv, _ in years})


@pytest.mark.parametrize(
    ("model", "dataset", "value", "arxiv"),
    [
        ("PixelCNN (original)", "cifar10", 3.14, "1601.06759"),
        ("PixelRNN", "cifar10", 3.0, "1601.06759"),
        ("Gated PixelCNN", "imagenet32", 3.83, "1606.05328"),
        ("Ladder VAE", "mnist", 81.74, "1602.02282"),
        ("IWAE", "omniglot", 103.38, "1509.00519"),
        ("Discrete VAE", "omniglot", 97.43, "1609.02200"),
        ("Real NVP", "celeba64", 3.02, "1605.08803"),
        ("Real NVP", "lsun_tower64", 2.81, "1605.08803"),
        ("Gated PixelCNN", "cifar10", 3.03, "1606.05328"),
        ("PixelCNN++", "cifar10", 2.92, "1701.05517"),
        ("PixelSNAIL", "cifar10", 2.85, "1712.09763"),
        ("Gated PixelCNN", "imagenet64", 3.57, "1606.05328"),
        ("Gated PixelVAE without upsampling", "mnist", 79.02, "1611.05013"),
        ("Gated PixelCNN (Gulrajani implementation)", "mnist", 80.1, "1611.05013"),
    ],
)
def test_landmarks_are_as_printed(model: str, dataset: str, value: float, arxiv: str) -> None:
    [row] = [row for row in RESULTS if (row.model, row.dataset) == (model, dataset)]
    assert (row.value, row.arxiv) == (value, arxiv)


def test_the_table_is_a_frame_with_a_row_a_result() -> None:
    frame = load_published()
    assert len(frame) == len(RESULTS)
    assert set(frame["likelihood"].cat.categories) == set(Exactness)
    assert frame["augmentation"].isna().any()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("dataset,version", "set,version", "must have the columns"),
        ("dataset,version", "version,version", "must name each column once"),
        (",8.0,", ",-8.0,", "line 2 .* value"),
        (",8.0,", ",inf,", "line 2 .* value"),
        (",8.0,,", ",8.0,no,", "line 2 .* upper_limit"),
        (",256,", ",1,", "line 2 .* levels, a whole number of 2 or more"),
        (",test,", ",Test,", "line 2 .* split, train or valid or test"),
        (",2016,", ",16,", "line 2 .* year"),
        (",no,,0,", ",no,,-1,", "line 2 .* params_million"),
        (",exact,", ",precise,", "line 2 .* likelihood, exact or .*, but got 'precise'"),
        (",8.0,", ",eight,", "line 2 .* value"),
        (",no,", ",never,", "line 2 .* conditional"),
    ],
)
def test_a_damaged_table_names_the_line(old: str, new: str, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        parse_published(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    "result", [result for result in RESULTS if result.gpu_hours is not None], ids=lambda result: result.model
)
def test_gpu_hours_are_gpus_times_hours_as_stated(result: PublishedResult) -> None:
    stated = re.match(r"(\d+) .*?~?([\d.]+) (h|days|weeks)\b", result.compute or "")
    assert stated
    gpus, time, unit = stated.groups()
    assert result.gpu_hours == int(gpus) * float(time) * {"h": 1, "days": 24, "weeks": 168}[unit]
