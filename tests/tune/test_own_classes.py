"""A search of a family of one's own on a local Ray, from a folder that is neither the working directory nor a path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import ROOT, store_in
from tests.support.own_code import FAMILY, SHALLOW, WARM, write_modules

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


def _launch(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the search in `mine/`, from another working directory."""
    command = [sys.executable, str(ROOT / "launch.py"), "--search", str(folder / "mine" / "tiny.py")]
    (folder / "here").mkdir()
    return subprocess.run(
        [*command, "--storage", str(folder / "r"), "--address", "local", *options],
        cwd=folder / "here",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_trials_find_the_code_next_to_the_search_file(tmp_path: Path, workers: int) -> None:
    """In the process of a trial, and in those of several workers of one."""
    (tmp_path / "mine").mkdir()
    write_modules(tmp_path / "mine")
    (tmp_path / "mine" / "tiny.py").write_text(SEARCH.replace("WORKERS", str(workers)))
    done = _launch(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = store_in(tmp_path / "r").trials()
    assert [row["status"] for row in rows] == ["finished"] * 3, [row["reason"] for row in rows]
    assert {row["workers"] for row in rows} == {workers}
    assert all((row["model.wings"] is None) == (row["model.family"] == "gated") for row in rows)


def test_a_row_of_several_workers_names_the_line_that_failed(tmp_path: Path) -> None:
    """Its exception passes through Ray Train and Ray Tune."""
    fails = 'return {}["x"] if "default_worker" in __import__("sys").argv[0] else self.head('
    text = FAMILY.replace("return self.head(", fails)
    (tmp_path / "mine").mkdir()
    write_modules(tmp_path / "mine", own_shallow=text)
    (tmp_path / "mine" / "tiny.py").write_text(SEARCH.replace("WORKERS", "2"))
    done = _launch(tmp_path, "--set", "model.family=own_shallow:ShallowConfig", "--trials", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    line = next(number for number, each in enumerate(text.splitlines(), 1) if fails in each)
    for row in store_in(tmp_path / "r").attempts():
        assert (row["status"], row["reason"]) == ("failed", f"own_shallow.py:{line} in forward: KeyError: 'x'")
        assert f'own_shallow.py", line {line}' in row["traceback"]
