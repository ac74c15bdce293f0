"""Searches whose trials hang: they are killed, recorded and tried once more, and the search comes to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.launching import Launch, curve_of, launches, store_in, write_search

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MODULE = """
import ctypes, os, sys
from pathlib import Path

from pixeltune.data.readers import digits

HANGS = {hangs}


def images(config):
    return digits.read(config)


def hang(attempts):
    for attempt in range(attempts):
        try:
            os.close(os.open(Path(__file__).with_name(f"hang-{{attempt}}"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        Path(__file__).with_name(f"pid-{{attempt}}").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(100_000)  # in C, the interpreter's lock held: no other thread of it runs


if "default_worker" in sys.argv[0]:
    from pixeltune.training.loop import Training

    step = Training._train_step

    def hanging(self, tally):
        if self.config.optim.lr == 0.01 and self.images_seen == 350:  # the base configuration: trial 0
            hang(HANGS)
        step(self, tally)

    Training._train_step = hanging
"""
PATIENCE = ("--set", "patience.minutes=0.5", "--set", "patience.times=3", "--set", "patience.start_minutes=10")


def _search(folder: Path, *, hangs: int, trials: int = 3) -> Path:
    (folder / "mymod.py").write_text(MODULE.format(hangs=hangs))
    search = write_search(folder, trials=trials)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    return search


def _require_dead(folder: Path, attempt: int) -> None:
    pid = (folder / f"pid-{attempt}").read_text()
    assert not Path(f"/proc/{pid}").exists(), "the process that hung is gone"


def _require_clean_end(run: Launch) -> None:
    assert run.wait(500) == 0, run.err
    assert run.err == ""
    assert run.left_behind() == []
    assert run.temporary_folders() == []


def test_a_trial_that_hangs_once_is_killed_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with launches(folder) as launch:
        run = launch(_search(tmp_path, hangs=1), *PATIENCE)
        _require_clean_end(run)
    assert {row["trial"]: row["status"] for row in store_in(folder).trials()} == {
        f"{number:05d}": "finished" for number in range(3)
    }
    first, second = [row for row in store_in(folder).attempts() if row["trial"] == "00000"]
    assert (first["status"], second["status"]) == ("failed", "finished")
    assert first["reason"].startswith("no report in ")
    assert "00000: no report in " in run.out
    assert [(point["attempt"], point["images_seen"]) for point in curve_of(folder, "00000")] == [
        *[(1, images) for images in (100, 200, 300)],
        *[(2, images) for images in (400, 500, 600)],
    ]
    _require_dead(tmp_path, 0)


def test_a_trial_that_hangs_twice_has_failed_and_the_others_finish(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with launches(folder) as launch:
        run = launch(_search(tmp_path, hangs=2), *PATIENCE)
        _require_clean_end(run)
    statuses = {row["trial"]: (row["status"], row["attempt"]) for row in store_in(folder).trials()}
    assert statuses == {"00000": ("failed", 2), "00001": ("finished", 1), "00002": ("finished", 1)}
    for attempt in range(2):
        _require_dead(tmp_path, attempt)
    failed = [row for row in store_in(folder).attempts() if row["status"] == "failed"]
    assert [row["reason"].startswith("no report in ") for row in failed] == [True, True]
    assert "failed" in run.out
    assert "no report in" in run.out


def test_two_workers_that_hang_are_killed_with_their_driver(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with launches(folder) as launch:
        run = launch(_search(tmp_path, hangs=1, trials=2), *PATIENCE, "--set", "resources.workers=2")
        assert run.wait(500) == 0, run.err
        assert run.err == ""
        assert run.left_behind() == []
    attempts = [(row["trial"], row["attempt"], row["status"]) for row in store_in(folder).attempts()]
    assert attempts == [("00000", 1, "failed"), ("00000", 2, "finished"), ("00001", 1, "finished")]
    _require_dead(tmp_path, 0)
