"""A search of a family of one's own on a local Ray, from a folder that is neither the working directory nor a path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import ROOT, store_in
from tests.support.own_code import SHALLOW, WARM, write_modules

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEARCH = f"""
from optuna.distributions import CategoricalDistribution, IntDistribution
from pixeltune import Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    base=TrialConfig.build({{
        "data": {{"name": "digits", "num_valid": 100}},
        "model": {{"family": "{SHALLOW}"}},
        "likelihood": {{"name": "{WARM}"}},
        "train": {{"images": 200, "batch_size": 50, "report_every": 100}},
    }}),
    vary={{
        "model.family": CategoricalDistribution(("gated", "{SHALLOW}")),
        "model.layers": IntDistribution(1, 2),
        "model.wings": IntDistribution(0, 3),
    }},
    budget=Budget(trials=3),
    resources=Resources(workers=WORKERS),
    sampler="random",
)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_trials_find_the_code_next_to_the_search_file(tmp_path: Path, workers: int) -> None:
    """In the process of a trial, and in those of several workers of one."""
    for name in ("mine", "here"):
        (tmp_path / name).mkdir()
    write_modules(tmp_path / "mine")
    (tmp_path / "mine" / "tiny.py").write_text(SEARCH.replace("WORKERS", str(workers)))
    command = [sys.executable, str(ROOT / "launch.py"), "--search", str(tmp_path / "mine" / "tiny.py")]
    done = subprocess.run(
        [*command, "--storage", str(tmp_path / "r"), "--address", "local"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = store_in(tmp_path / "r").trials()
    assert [row["status"] for row in rows] == ["finished"] * 3, [row["reason"] for row in rows]
    assert {row["workers"] for row in rows} == {workers}
    assert all((row["model.wings"] is None) == (row["model.family"] == "gated") for row in rows)
