"""The table of benchmarks/faults.py: what it runs, in which order, and that it goes on where it stopped."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults import in_order, level_of, spread
from tests.support.ray_faults import FAULTS as RAY_FAULTS
from tests.support.store_faults import FAULTS as STORE_FAULTS
from tests.support.store_faults import MOMENTS

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.py"


def test_every_beginning_of_the_moments_is_spread() -> None:
    assert sorted(spread(MOMENTS)) == list(range(MOMENTS))
    for count in (3, 5, 10):
        thirds = Counter(3 * moment // MOMENTS for moment in spread(count))
        assert set(thirds) == {0, 1, 2}


def test_every_fault_meets_every_moment_once_and_few_rays_are_started() -> None:
    names = [*RAY_FAULTS, *STORE_FAULTS]
    order = in_order(names, spread(MOMENTS))
    assert len(order) == len(set(order)) == MOMENTS * len(names)
    assert [level_of(name) for name, _ in order] == sorted((level_of(name) for name, _ in order), reverse=True)
    places = [RAY_FAULTS[name].place for name, _ in order if name in RAY_FAULTS]
    starts = 1 + sum(before != after for before, after in itertools.pairwise(places))
    assert starts <= 3 * MOMENTS / 2


def test_no_name_is_of_two_levels() -> None:
    assert not set(STORE_FAULTS) & set(RAY_FAULTS)


def _run(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--out", str(out), "--only", "killed writing", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_it_goes_on_with_what_is_not_done_and_shows_what_failed(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    first = _run(out, "--moments", "1")
    assert first.returncode == 0, first.stderr
    assert "| killed writing | store | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in first.stdout
    (run,) = json.loads(out.read_text())
    out.write_text(json.dumps([run | {"rows_lost": 2, "words": "rows_lost: two of them"}]))
    second = _run(out, "--moments", "2")
    assert second.returncode == 1
    assert second.stdout.count(", moment ") == 1, "the first is not run again"
    assert "| killed writing | store | 2 | 2 | 0 |" in second.stdout
    assert f'--only "killed writing" --moment {run["moment"]}\n    rows_lost: two of them' in second.stdout
    again = _run(out, "--moment", str(run["moment"]))
    assert again.returncode == 0, "what is run again takes the place of what failed"
    assert len(json.loads(out.read_text())) == 2
