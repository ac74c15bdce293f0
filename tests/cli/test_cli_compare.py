"""`pixeltune compare` on rows of a published data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from commands import done, refused

from pixeltune.config import TrialConfig
from pixeltune.results.store import SearchStore

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
    assert title.startswith("cifar/00003: 3.0200 bits/dim (test), 40 GPU-hours; it would be number 17 of 28")
    assert _line(said, "PixelSNAIL").split()[:2] == ["2.85", "+0.170"]
    assert _line(said, "Gated PixelCNN").split()[:2] == ["3.03", "-0.010"]
    assert _line(said, "PixelCNN++ (2017)").split()[:3] == ["2.92", "+0.100", "960"]
    kinds = ["not comparable" in line for line in lines if " comparable" in line]
    assert kinds == sorted(kinds)


def test_a_table_beside_the_results_is_read_along() -> None:
    Path("results/published.csv").write_text(OWN)
    said = done("compare", "cifar")
    assert "With the rows of results/published.csv." in said
    assert "it would be number 18 of 29" in said
    assert _line(said, "ours before").split()[:3] == ["3.01", "+0.010", "50"]
    done("compare", "--csv", "table.csv")
    table = pd.read_csv("table.csv").set_index("model")
    assert table.loc["ours before", "compute_ratio"] == 0.8


def test_another_table_may_be_named() -> None:
    Path("mine.csv").write_text(OWN.replace("3.01", "x"))
    assert "line 2 of the published results must have value, but got 'x' (in mine.csv)" in refused(
        "compare", "--own", "mine.csv"
    )
    assert "must be a CSV file, but nowhere.csv is not" in refused("compare", "--own", "nowhere.csv")


def test_a_bound_is_said_to_be_one() -> None:
    (row,) = SearchStore("results", "cifar").trials()
    SearchStore("results", "cifar").write_trial(row | {"is_bound": True})
    assert done("compare").startswith("cifar/00003: at most 3.0200 bits/dim (test)")
