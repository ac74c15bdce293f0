"""Every module imports, and results are read, trained and drawn from, without what Linux alone has.

One process imitates Windows (`imitated_windows`). `mypy --platform win32` and `darwin` check the same names statically.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pixeltune
from tests.support import imitated_windows
from tests.support.commands import write_tiny
from tests.support.made_up_search import write_results

ROOT = Path(pixeltune.__file__).parent
TRIALS = 24
VERBS = {
    "train": ["train", "--config", "tiny.toml"],
    "train again": ["train", "--config", "tiny.toml"],
    "evaluate": ["evaluate", "tiny", "--split", "valid"],
    "audit": ["audit", "--config", "tiny.toml"],
    "sample": ["sample", "tiny", "-n", "4"],
    "gallery": ["sample", "tiny", "--gallery"],
    "complete": ["complete", "tiny", "-n", "1", "--draws", "1"],
    "show": ["show", "toy"],
    "show a training": ["show", "tiny"],
    "show as a file": ["show", "tiny", "--toml"],
    "status": ["status", "toy"],
    "status as JSON": ["status", "toy", "--json"],
    "compare": ["compare", "toy", "--csv", "compared.csv"],
    "report": ["report", "toy"],
    "report of a training": ["report", "tiny"],
    "export": ["export", "tiny"],
    "compact": ["compact", "toy"],
    "columns": ["columns"],
    "config": ["config"],
    "searches": ["search", "--list"],
    "doctor": ["doctor"],
}
WRITES = ("answers.json", "compared.csv", "completions.png", "samples.png", "tiny-report.html", "toy-report.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the process, where answers.json is."""
    folder = tmp_path_factory.mktemp("windows")
    write_tiny(folder / "tiny.toml")
    write_results(str(folder / "results"), "toy", trials=TRIALS)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT.parent),
        "PYTHONIOENCODING": "cp1252",  # of a file or pipe on Windows; it lacks characters that tables have
        "PIXELTUNE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, imitated_windows.__file__, json.dumps(VERBS)]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode("cp1252")
    (folder / "out.txt").write_bytes(done.stdout)
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return content


def test_every_module_imports(answers: dict[str, Any]) -> None:
    modules = [path for path in ROOT.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    assert len(answers["modules"]) >= len(modules) > 100


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_runs(answers: dict[str, Any], name: str) -> None:
    assert answers[name] == 0


def test_files_are_written_and_what_the_encoding_lacks_is_written_in_ascii(folder: Path) -> None:
    assert {*WRITES} <= {path.name for path in folder.iterdir()}
    said = (folder / "out.txt").read_bytes()
    assert b"?" not in said
    assert b"##########" in said, "for the blocks of a curve"


def test_results_are_read_in_python(answers: dict[str, Any]) -> None:
    assert answers["trials"] == TRIALS
    assert answers["trials of the study"] > 0
    assert answers["curves"]
    assert answers["front"]
    assert answers["compared"]


def test_a_search_has_one_holder(answers: dict[str, Any]) -> None:
    assert answers["is held by this process"]
    assert not answers["is held"]


def test_what_is_imitated() -> None:
    assert {"fork", "getuid", "pread", "sched_getaffinity", "sysconf"} <= imitated_windows.missing_on_windows("os")
    assert {"SIGKILL", "SIGHUP", "SIGUSR1", "alarm"} <= imitated_windows.missing_on_windows("signal")
    assert "replace" not in imitated_windows.missing_on_windows("os")


def test_text_files_name_their_encoding() -> None:
    """It is not UTF-8 by default on Windows. The rule is one of ruff's preview, which would change others too."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview", "--select", "PLW1514", "--quiet"]
    found = subprocess.run([*command, str(ROOT)], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert found.returncode == 0, found.stdout
