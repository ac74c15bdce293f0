"""A worker of several dies in the middle of a training: its trial goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.launching import curve_of, launches, store_in, write_search

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MODULE = """
import os, signal, sys
from pathlib import Path

from pixeltune.data.readers import digits


def images(config):
    return digits.read(config)


if "default_worker" in sys.argv[0]:
    from pixeltune.training.loop import Training

    step = Training._train_step

    def dying(self, tally):
        if self.config.optim.lr == 0.01 and self.images_seen == 350 and self.workers.rank == 1:
            try:
                os.close(os.open(Path(__file__).with_name("died"), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        step(self, tally)

    Training._train_step = dying
"""


def _reports(folder: Path, trial: str) -> list[tuple[int, int]]:
    return [(point["attempt"], point["images_seen"]) for point in curve_of(folder, trial)]


def test_a_killed_worker_of_two_costs_its_trial_one_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    (tmp_path / "mymod.py").write_text(MODULE)
    search = write_search(tmp_path, trials=2)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    with launches(folder) as launch:
        run = launch(search, "--set", "resources.workers=2")
        assert run.wait(500) == 0, run.err
        assert run.err == ""
        assert run.left_behind() == []
    attempts = [(row["trial"], row["attempt"], row["status"]) for row in store_in(folder).attempts()]
    assert attempts == [("00000", 1, "failed"), ("00000", 2, "finished"), ("00001", 1, "finished")]
    points = _reports(folder, "00000")
    assert [images for _, images in points] == list(range(100, 601, 100)), "no image is counted twice, none left out"
    assert points == sorted(points)
    assert {attempt for attempt, _ in points} == {1, 2}, "it went on from a checkpoint"
