"""The table of benchmarks/gpu.py, and its parts on toys and this machine's CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu_checks.report import Found, Report

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def begin(*, minutes: float = 1.0, quick: bool = False) -> Report:
    return Report.begin(Namespace(part="A", device="cpu", quick=quick, minutes=minutes))


def test_a_row_that_misses_its_limit_is_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    report = begin()
    report.check("kept", "x", lambda: [Found.at_most(1e-6, 1e-5), Found.is_so(True, "equal")])
    report.check("free", "x", lambda: [Found("3 s", setting="twice")])
    assert report.end() == 0
    report.check("missed", "x", lambda: [Found.at_most(2e-5, 1e-5, " bits/dim")])
    assert report.end() == 1
    out = capsys.readouterr().out
    assert "| kept | x | 1e-06 | ≤ 1e-05 | yes |\n| kept | x | equal | equal | yes |\n" in out
    assert "| free | x, twice | 3 s | – | – |\n" in out
    assert "| missed | x | 2e-05 bits/dim | ≤ 1e-05 | NO |\n" in out
    assert "2 kept, 1 missed, 1 without a limit, 0 skipped" in out


def test_what_is_not_a_number_misses_its_limit() -> None:
    assert Found.at_most(float("nan"), 1.0).ok is False


def test_an_error_is_a_row_and_the_next_check_runs(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Iterator[Found]:
        yield Found("half of it")
        raise RuntimeError("CUDA error:\nan illegal | access")

    report = begin()
    report.check("first", "x", fail)
    report.check("second", "x", lambda: [Found("done")])
    assert report.end() == 1
    out = capsys.readouterr().out
    assert "| first | x | half of it | – | – |\n" in out
    assert "| first | x | RuntimeError: CUDA error: an illegal / access | to run | NO |\n" in out
    assert "| second | x | done | – | – |\n" in out


def test_what_no_time_is_left_for_is_skipped_and_what_takes_longer_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    def swallow() -> Iterator[Found]:
        try:
            time.sleep(30)
        except Exception:
            yield Found("went on")

    report = begin(minutes=0.5 / 60)
    report.check("long", "x", swallow, seconds=0.1)
    report.check("late", "x", lambda: [Found("done")], seconds=0.1)
    assert report.end() == 0
    out = capsys.readouterr().out
    assert "| long | x | skipped: stopped, the part's time is over | – | – |\n" in out
    assert "| late | x | skipped: 0 s left, may take 0 | – | – |\n" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "checks"),
    [
        ("A", ("float64, as on the CPU", "evaluation in float32", "training", "images, as drawn", "completions")),
        ("B", ("square matrix products", "training step")),
        ("C", ("cached sampling", "rows of cached sampling", "a short training", "feeding", "verify-bits")),
    ],
)
def test_a_part_runs_on_toys_without_installation(part: str, checks: tuple[str, ...], tmp_path: Path) -> None:
    """From another folder. On the CPU, the device is as the CPU."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--part", part, "--device", "cpu", "--quick"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1", "PIXELTUNE_CACHE": str(tmp_path / "cache")},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for check in checks:
        assert f"| {check}" in done.stdout
    assert "| NO |" not in done.stdout
