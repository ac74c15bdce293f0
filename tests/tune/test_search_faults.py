"""Searches whose trials crash, or whose results cannot be written: nothing is lost, and it is said."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from pathlib import Path

import pytest

from tests.support.launching import ends, launches, store_in, write_search

pytestmark = [pytest.mark.slow, pytest.mark.ray]


MODULE = """
import os, sys
from pathlib import Path

from pixeltune.data.readers import digits

FAILING_CALLS = 5


def images(config):
    for call in range(FAILING_CALLS if "default_worker" in sys.argv[0] else 0):
        try:
            os.close(os.open(Path(__file__).with_name(f"call-{call}"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if call == 0:
            os._exit(1)
        raise ValueError("these images\\nare not for reading")
    return digits.read(config)
"""


def test_trials_that_crash_are_tried_again_and_the_search_goes_on(tmp_path: Path) -> None:
    """The first five attempts crash, one by the death of its process; no trial is tried more than twice."""
    folder = tmp_path / "r"
    (tmp_path / "mymod.py").write_text(MODULE)
    search = write_search(tmp_path, trials=4)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    with launches(folder) as launch:
        run = launch(search)
        assert run.wait() == 0, run.err
        assert run.err == ""
        assert run.left_behind() == []
    attempts = store_in(folder).attempts()
    failed = [row for row in attempts if row["status"] == "failed"]
    assert len(failed) == 5
    assert sum("died" in row["reason"] for row in failed) == 1
    raised = [row for row in failed if "ValueError: these images are not for reading" in row["reason"]]
    assert len(raised) == 4
    assert all("\n" not in row["reason"] for row in failed)
    assert all("mymod.py" in row["traceback"] for row in raised)
    tries = Counter(row["trial"] for row in attempts)
    assert set(tries.values()) <= {1, 2}
    last = {row["trial"]: row["status"] for row in store_in(folder).trials()}
    assert len(last) == 4
    for trial, status in last.items():
        crashes = sum(row["trial"] == trial for row in failed)
        assert (status, tries[trial]) == (("failed", 2) if crashes == 2 else ("finished", crashes + 1))
    assert "raylet" not in run.out


def test_results_that_cannot_be_written_end_the_search_in_one_line(tmp_path: Path) -> None:
    """The error comes up inside one of Tune's hooks, which would take it for the trial's."""
    folder = tmp_path / "r"
    search = write_search(tmp_path, images=4000, every=100, trials=30)
    with launches(folder) as launch:
        run = launch(search)
        run.wait_until(lambda: (folder / "tiny" / "trials").exists() and "finished" in ends(folder).values())
        _replace_by_file(folder / "tiny" / "trials")
        assert run.wait() == 2, run.err
        assert len(run.err.splitlines()) == 1, run.err
        assert "results must be writable" in run.err
        assert run.left_behind() == []
        assert run.temporary_folders() == []


def _replace_by_file(folder: Path) -> None:
    """Put a file in a folder's place, also where its writer makes it again in between."""
    for number in itertools.count():
        if folder.is_dir():
            folder.rename(folder.with_name(f"away-{number}"))
        with contextlib.suppress(FileExistsError):
            folder.touch(exist_ok=False)
        if folder.is_file():
            return
