"""`pixeltune cluster`: a line for each finding and its exit codes; and where commands on a cluster keep results."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from pixeltune.cli import command_line
from pixeltune.cli.common import run
from tests.support.commands import command

FOLDER = Path(__file__).resolve().parents[2] / "cluster"


def test_each_finding_is_a_line_and_the_exit_code_is_one() -> None:
    said = command("cluster", "check", str(FOLDER / "gpu.yaml"))
    assert said.code == 1
    assert said.out.startswith("metadata.address: must be filled in: your own address")
    assert all(": must be " in line or " must be " in line for line in said.out.splitlines())
    assert said.err == ""


@pytest.mark.parametrize("step", ["check", "prepare"])
def test_a_file_that_is_none_is_one_line_and_exit_code_two(step: str, tmp_path: Path) -> None:
    said = command("cluster", step, str(tmp_path / "none.yaml"))
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("pixeltune: a cluster file must be readable YAML")
    assert said.err.count("\n") == 1


def test_an_address_that_is_not_filled_in_is_refused_before_aws_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    shutil.copytree(FOLDER, tmp_path / "cluster")
    said = command("cluster", "prepare", str(tmp_path / "cluster" / "gpu.yaml"))
    assert (said.code, said.out) == (2, "")
    assert "metadata.address must be your own address, such as 203.0.113.7/32, but is not filled in" in said.err


def test_results_lie_where_the_cluster_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELTUNE_STORAGE", raising=False)
    assert command_line().parse_args(["status", "x"]).storage == "results"
    monkeypatch.setenv("PIXELTUNE_STORAGE", "s3://a-bucket/results")
    assert command_line().parse_args(["status", "x"]).storage == "s3://a-bucket/results"
    assert command_line().parse_args(["status", "x", "--storage", "here"]).storage == "here"


def test_a_command_that_is_told_to_end_ends_as_by_ctrl_c() -> None:
    """So a job is stopped, and a queue's time is over."""
    tidied = []

    def verb(_options: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            return 0
        finally:
            tidied.append(True)

    assert run(verb, argparse.Namespace(quiet=False, verbose=False)) == 130
    assert tidied
