"""A spot notice in the middle of a long interval between two reports: no step is lost, and no number changes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune.cluster.spot_agent import ENDPOINT
from pixeltune.search.messages import TrialTask
from pixeltune.search.trial import run_trial
from pixeltune.space import load_search
from pixeltune.training.checkpoint import TrainState
from tests.support.launching import launches, store_in, write_search
from tests.support.metadata_service import Metadata, serving
from tests.support.ray_faults import Stand

pytestmark = [pytest.mark.slow, pytest.mark.ray]

TAKEN = "its node was taken away (spot notice)"
MODULE = """
FAST = {fast!r}
import sys, time
from pathlib import Path

from pixeltune.data.readers import digits


def images(config):
    return digits.read(config)


if "default_worker" in sys.argv[0]:
    from pixeltune.training.loop import Training

    step = Training._train_step

    def slow(self, tally):
        time.sleep(0 if Path(FAST).exists() else 0.5)
        step(self, tally)

    Training._train_step = slow
"""


@pytest.fixture
def stand() -> Iterator[Stand]:
    """A head without places, and two nodes with one each."""
    one = Stand("nodes")
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_goes_on_from_the_step_at_which_it_was_taken_away(stand: Stand, tmp_path: Path, workers: int) -> None:
    """All machines are taken at once, when others have come.

    Before, for a node that joins unpacks the job's code anew, where nodes of one machine share it: processes that are
    just starting would lose the folder that they run in.
    """
    fast = tmp_path / "fast"  # until it exists, the first report is 80 s away
    (tmp_path / "mymod.py").write_text(MODULE.format(fast=str(fast)))
    search = write_search(tmp_path, images=16000, every=8000, trials=1)
    search.write_text(search.read_text().replace('"name": "digits"', '"name": "mymod:images"'))
    state, metadata = Path(store_in(tmp_path / "r").checkpoint("00000"), "state.pt"), Metadata()
    with serving(metadata) as endpoint, launches(tmp_path / "r") as launch:
        for node in stand.nodes:
            watch = [sys.executable, "-m", "pixeltune", "cluster", "watch-spot", "aws", "--node", node.node_id]
            subprocess.run(watch, env=os.environ | {ENDPOINT: endpoint}, check=True, capture_output=True)
        run = launch(search, "--address", stand.address, "--set", f"resources.workers={workers}")
        run.wait_until(lambda: _is_training(tmp_path / "r"))
        taken, stand.nodes, began = stand.nodes, [], time.monotonic()
        stand.complete()
        time.sleep(max(5, time.monotonic() - began))  # the code is unpacked there
        gone = metadata.take_away(60)
        run.wait_until(state.exists, 60)
        saved = TrainState.load(str(state))
        assert time.time() < gone
        run.wait_until(lambda: store_in(tmp_path / "r").attempts()[0]["status"] == "interrupted", 60)
        fast.touch()
        stand.nodes += taken
        for _ in taken:
            stand.kill_node(2)
        assert run.wait() == 0, run.err
        assert run.err == ""
    assert 0 < saved.images_seen < 8000
    rows = store_in(tmp_path / "r").attempts()
    assert [(row["status"], row["reason"]) for row in rows] == [("interrupted", TAKEN), ("finished", None)]
    assert f"00000: {TAKEN}; it goes on elsewhere." in run.out
    curve = {point["images_seen"]: point["valid_nats"] for point in store_in(tmp_path / "r").curve("00000")}
    assert curve == pytest.approx(_numbers_alone(rows[0], tmp_path), rel=0 if workers == 1 else 1e-5)


def _is_training(folder: Path) -> bool:
    """Its audit is done, and its first steps are, about."""
    store = store_in(folder)
    if not store.exists() or not (rows := store.attempts()) or rows[-1]["audit_seconds"] is None:
        return False
    time.sleep(2)
    return True


def _numbers_alone(row: dict[str, object], folder: Path) -> dict[int, float]:
    """Of the same trial, uninterrupted, in this process."""
    space = load_search(str(folder / "tiny.py"))
    config = space.configure(space.suggestion_of(row)).override({"data.name": "digits"})
    task = TrialTask("00000", config.model_dump(), str(folder / "alone" / "00000"), cpus=1)
    reports = [message["report"] for message in run_trial(task) if "report" in message]
    return {report["images_seen"]: report["valid_nats"] for report in reports}
