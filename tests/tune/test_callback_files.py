"""What a search's own callbacks write is kept in its folder, also while it runs and where it cannot be written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixeltune.tune.adapters import CallbackFiles


class Run:
    """A run of Tune with one trial, whose callbacks write into `written`."""

    def __init__(self, folder: Path) -> None:
        self.written = folder / "staged" / "abc"
        self.written.mkdir(parents=True)
        self.clock = 0.0
        self.said: list[str] = []
        state: Any = SimpleNamespace(attempt_name=lambda _trial_id: "00003-2", say=self.said.append)
        self.files = CallbackFiles(state, str(folder / "search"), clock=lambda: self.clock)
        self.trial = SimpleNamespace(trial_id="abc", local_path=str(self.written))
        self.kept = folder / "search" / "callbacks" / "00003-2"

    def step(self, seconds: float) -> None:
        self.clock += seconds
        self.files.on_step_end(0, [self.trial])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.files.on_trial_start(0, [run.trial], run.trial)
    return run


def test_files_are_copied_now_and_then_and_at_the_end(run: Run) -> None:
    (run.written / "plugins").mkdir()
    (run.written / "events").write_text("one")
    (run.written / "plugins" / "image.png").write_bytes(b"png")
    run.step(20)
    assert not run.kept.exists()
    run.step(20)
    assert (run.kept / "events").read_text() == "one"
    assert (run.kept / "plugins" / "image.png").read_bytes() == b"png"
    (run.written / "events").write_text("one, two")
    (run.written / "error.pkl").write_bytes(b"a pickle")
    run.files.on_trial_complete(0, [run.trial], run.trial)
    assert (run.kept / "events").read_text() == "one, two"
    assert sorted(path.name for path in run.kept.iterdir()) == ["events", "plugins"]
    (run.written / "events").write_text("too late")
    run.files.on_experiment_end([run.trial])
    assert (run.kept / "events").read_text() == "one, two"


def test_what_did_not_change_is_not_copied_again(run: Run) -> None:
    (run.written / "events").write_text("one")
    run.step(31)
    (run.kept / "events").write_text("mine")
    run.step(31)
    assert (run.kept / "events").read_text() == "mine"


@pytest.mark.parametrize("end", ["on_trial_error", "on_experiment_end"])
def test_an_attempt_that_fails_or_is_stopped_keeps_its_files(run: Run, end: str) -> None:
    (run.written / "events").write_text("one")
    ends = {"on_trial_error": (0, [run.trial], run.trial), "on_experiment_end": ([run.trial],)}
    getattr(run.files, end)(*ends[end])
    assert (run.kept / "events").read_text() == "one"


def test_a_folder_that_cannot_be_written_is_reported_once(run: Run) -> None:
    run.kept.parent.parent.write_text("a file in its place")
    (run.written / "events").write_text("one")
    run.step(31)
    (run.written / "events").write_text("two")
    run.files.on_trial_complete(0, [run.trial], run.trial)
    assert len(run.said) == 1
    assert run.said[0].startswith("Files of callbacks cannot be copied to ")
