"""`pixeltune compare` on rows of a published data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore
from pixeltune.space import SearchSpace
from tests.support.commands import done, refused
from tests.support.results import make_store

CONFIG = TrialConfig.build(
    {"data": {"name": "cifar10"}, "model": {"family": "gated"}, "likelihood": {"name": "logistic_mixture"}}
)
FORM = {"image_channels": 3, "image_height": 32, "image_width": 32, "levels": 256, "data_version": "original"}
OWN = "dataset,model,metric,value,likelihood,year,gpu_hours\ncifar10,ours before,bits_per_dim,3.01,exact,2025,50\n"


@pytest.fixture(autouse=True)
def a_final() -> None:
    """One run of a final: 3.02 bits/dim on the test set, from 40 GPU-hours."""
    numbers = {"test_bits_per_dim": 3.02, "evaluated_split": "test", "is_bound": False, "gpu_seconds": 144_000.0}
    row = CONFIG.flat() | FORM | numbers | {"trial": "00003", "attempt": 1, "number": 3, "status": "finished"}
    SearchStore("results", "cifar").write_trial(row | {"started_at": pd.Timestamp("2026-11-01", tz="UTC")})


def _line(said: str, model: str) -> str:
    return next(line for line in said.splitlines() if model in line)


def test_what_is_comparable_comes_first_with_rank_gap_and_compute() -> None:
    said = done("compare")
    title, _, *lines = said.splitlines()
    assert title.startswith("cifar/00003: 3.0200 bits/dim (test), 40 GPU-hours; it would be number 18 of 29")
    assert _line(said, "PixelSNAIL").split()[:2] == ["2.85", "+0.170"]
    assert _line(said, "Gated PixelCNN").split()[:2] == ["3.03", "-0.010"]
    assert _line(said, "PixelCNN++ (2017)").split()[:3] == ["2.92", "+0.100", "960"]
    kinds = ["not comparable" in line for line in lines if " comparable" in line]
    assert kinds == sorted(kinds)


def test_a_table_beside_the_results_is_read_along() -> None:
    Path("results/published.csv").write_text(OWN)
    said = done("compare", "cifar")
    assert "With the rows of results/published.csv." in said
    assert "it would be number 19 of 30" in said
    assert _line(said, "ours before").split()[:3] == ["3.01", "+0.010", "50"]
    done("compare", "--csv", "table.csv")
    table = pd.read_csv("table.csv").set_index("model")
    assert table.loc["ours before", "compute_ratio"] == 0.8


def test_another_table_may_be_named() -> None:
    Path("mine.csv").write_text(OWN.replace("3.01", "x"))
    assert "but got 'x' (in mine.csv)" in refused("compare", "--own", "mine.csv")
    assert "must be a CSV file, but nowhere.csv is not" in refused("compare", "--own", "nowhere.csv")


def test_a_diverged_trial_hides_no_finished_one() -> None:
    """Its best report before may be the lowest of the search; it has no number to compare."""
    store = SearchStore("results", "some")
    for number, (status, bits) in enumerate([("diverged", 2.9), ("finished", 3.1), ("pruned", 3.2)]):
        numbers = {"valid_bits_per_dim": bits, "evaluated_split": "valid", "is_bound": False}
        row = CONFIG.flat() | FORM | numbers | {"trial": f"{number:05d}", "attempt": 1, "number": number}
        store.write_trial(row | {"status": status, "started_at": pd.Timestamp("2026-11-01", tz="UTC")})
    assert done("compare", "some").startswith("some/00001: 3.1000 bits/dim (validation)")


def test_rows_of_ones_own_are_found_by_the_name_of_the_source() -> None:
    """Of a set that the shipped table lacks; that it is the same is said by a checksum alone."""
    digits = {"data.name": "digits", "image_channels": 1, "image_height": 8, "image_width": 8, "levels": 17}
    numbers = {"valid_bits_per_dim": 1.8, "evaluated_split": "valid", "data_checksum": "abc", "is_bound": False}
    row = CONFIG.flat() | digits | numbers | {"trial": "00000", "attempt": 1, "number": 0, "status": "finished"}
    SearchStore("results", "tiny").write_trial(row | {"started_at": pd.Timestamp("2026-11-01", tz="UTC")})
    form = "image_channels,image_height,image_width,levels,binarisation,data_checksum\n"
    Path("own.csv").write_text(
        f"dataset,model,metric,value,likelihood,year,{form}"
        "digits,plain,bits_per_dim,1.9,exact,2026,1,8,8,17,none,\n"
        "digits,same,bits_per_dim,1.7,exact,2026,1,8,8,17,none,abc\n"
    )
    said = done("compare", "tiny", "--own", "own.csv")
    assert "tiny/00000: 1.8000 bits/dim (validation); not comparable: validation, not test" in said
    assert _line(said, "plain (2026)").split()[:2] == ["1.9", "-0.100"]
    assert "not the published set" in _line(said, "plain (2026)")
    assert _line(said, "same (2026)").split()[:2] == ["1.7", "+0.100"]


def test_a_trial_out_of_bounds_is_not_the_best() -> None:
    store = make_store("results", "small", SearchSpace(base=CONFIG, constraints={"num_parameters": 1000}))
    for number, (bits, parameters) in enumerate([(2.9, 2000), (3.1, 500), (3.0, 400)]):
        numbers = {"valid_bits_per_dim": bits, "evaluated_split": "valid", "num_parameters": parameters}
        row = CONFIG.flat() | FORM | numbers | {"trial": f"{number:05d}", "attempt": 1, "number": number}
        store.write_trial(row | {"status": "finished", "started_at": pd.Timestamp("2026-11-01", tz="UTC")})
    assert done("compare", "small").startswith("small/00002: 3.0000 bits/dim (validation)")
    done("compare", "small", "--top", "3", "--csv", "all.csv")
    assert pd.read_csv("all.csv")["trial"].drop_duplicates().to_list() == [2, 1, 0]


def test_a_bound_is_said_to_be_one() -> None:
    (row,) = SearchStore("results", "cifar").trials()
    SearchStore("results", "cifar").write_trial(row | {"is_bound": True})
    assert done("compare").startswith("cifar/00003: at most 3.0200 bits/dim (test)")


def test_a_limit_is_marked() -> None:
    assert _line(done("compare", "--all"), "PixelCNN++ no dropout").split()[:2] == ["<", "2"]


def test_speeds_are_next_to_the_published_ones_with_their_device() -> None:
    (row,) = SearchStore("results", "cifar").trials()
    measured = {"sample_images_per_second": 1.5, "sample_batch_size": 16, "cpu_name": "A processor"}
    SearchStore("results", "cifar").write_trial(row | measured)
    said = done("compare", "--speed")
    ours = _line(said, "cifar/00003")
    assert ours.split()[:2] == ["1.5", "16"]
    assert "A processor" in ours
    assert [line.split()[:2] for line in said.splitlines() if "1704.06001" in line and "K40" in line][-1] == [
        "183",
        "256",
    ]
    assert "images/s of two devices do not compare; only the speed-up does" in " ".join(said.split())
    SearchStore("results", "cifar").write_trial(row | measured | {"gpu_name": "A GPU"})
    done("compare", "--speed", "--csv", "speeds.csv")
    table = pd.read_csv("speeds.csv")
    assert table.iloc[0][["origin", "device", "images_per_second"]].to_list() == ["ours", "A GPU", 1.5]
    assert set(table["origin"]) == {"ours", "published"}


def test_speeds_need_a_measured_one_and_no_table_of_likelihoods() -> None:
    assert "there must be results with sample_images_per_second to compare" in refused("compare", "--speed")
    assert "leave out --own mine.csv" in refused("compare", "--speed", "--own", "mine.csv")


def test_a_source_without_a_paper_is_named_by_its_title() -> None:
    assert "Factoring Variations in Natural Images" in " ".join(done("compare", "--all").split())


def test_the_nearest_are_shown_and_all_on_demand() -> None:
    """The PixelCNN family first, within it and after it the nearest in kind, then how many more there are."""
    _title, _head, *lines, more, _ = done("compare", "cifar").splitlines()
    assert len(lines) == 15
    family = ["Pixel" in line or "LMConv" in line for line in lines]
    assert sum(family) == 10
    assert family == sorted(family, reverse=True)
    every = done("compare", "cifar", "--all").splitlines()[2:-1]
    assert more == f"… {len(every) - 15} more; --all shows them"
    assert {line.split()[0] for line in lines} <= {line.split()[0] for line in every}


def test_a_bound_is_next_to_the_family_although_it_is_exact() -> None:
    """Of the nearest in kind alone, none would be a PixelCNN."""
    (row,) = SearchStore("results", "cifar").trials()
    SearchStore("results", "cifar").write_trial(row | {"is_bound": True})
    lines = done("compare", "cifar").splitlines()[2:]
    assert "PixelSNAIL" in lines[0]
    assert "not comparable: ours is a bound, theirs is exact" in lines[0]
    assert sum("ours is a bound" in line for line in lines) == 10
    assert sum(" comparable" in line and "not comparable" not in line for line in lines) >= 1


@pytest.mark.parametrize("width", [80, 120, 200])
def test_numbers_are_whole_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.cli.compare.console", lambda: _terminal(width))
    said = done("compare", "cifar")
    table = said.splitlines()[1:]
    assert all(len(line) <= width for line in table if not line.startswith("Not shown"))
    assert _line(said, "PixelSNAIL").split()[:2] == ["2.85", "+0.170"]
    hidden = {80: "GPU-hours, source", 120: "", 200: ""}[width]
    assert (f"Not shown in {width} columns: {hidden}" in said) == bool(hidden)


def _terminal(width: int) -> Console:
    return Console(width=width, force_terminal=True, color_system=None)
