"""What trackers get of a search: everything once, in any order of errors and launches, without delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pixeltune.config import ImageSpec
from pixeltune.search import tracking
from pixeltune.search.callbacks import Callbacks, SearchCallback
from pixeltune.search.state import SearchState
from pixeltune.search.tracking import REPORT, SAMPLES, SAMPLES_AT_END, Tracker, Tracking, TrialLog, TrialSnapshot
from pixeltune.space import Resources
from tests.support.toy_search import BEGUN, FINISHED, ended, play, reported, toy_space, toy_state

FORM = ImageSpec(1, 8, 8, 17)
Entry = tuple[str, str, int]


class Ledger(Tracker):
    """A tracker in memory. `broken` is called before each entry, and may raise or wait."""

    name = "ledger"

    def __init__(self, kept: list[Entry] | None = None) -> None:
        self.entries: list[Entry] = [] if kept is None else kept
        self.ends: list[tuple[str, str, str | None]] = []
        self.numbers: dict[str, dict[str, float]] = {}
        self.metrics: dict[tuple[str, int], Mapping[str, float]] = {}
        self.broken: Callable[[], None] = lambda: None
        self.opened: list[str] = []

    def open(self, snapshot: TrialSnapshot) -> TrialLog:
        self.opened.append(snapshot.trial)
        return LedgerLog(self, snapshot.trial)


class LedgerLog(TrialLog):
    def __init__(self, ledger: Ledger, trial: str) -> None:
        self.ledger, self.trial = ledger, trial

    def has(self, kind: str, images: int) -> bool:
        return (self.trial, kind, images) in self.ledger.entries

    def log(self, images: int, at: datetime, numbers: Mapping[str, float]) -> None:
        self.ledger.broken()
        assert at.tzinfo is not None
        self.ledger.entries.append((self.trial, REPORT, images))
        self.ledger.metrics[self.trial, images] = numbers

    def show(self, kind: str, images: int, png: bytes) -> None:
        self.ledger.broken()
        assert png == b"png"
        self.ledger.entries.append((self.trial, kind, images))

    def flush(self) -> None:
        pass

    def end(self, snapshot: TrialSnapshot) -> None:
        self.ledger.ends.append((self.trial, snapshot.status, snapshot.reason))
        self.ledger.numbers[self.trial] = snapshot.numbers()


class Launch:
    """A launch of the toy search that is shown in a ledger."""

    def __init__(self, folder: Path, ledger: Ledger, **space: Any) -> None:
        self.state: SearchState = toy_state(folder, toy_space(**space))
        self.lines: list[str] = []
        self.tracking = Tracking([ledger], self.state.store, self.lines.append)
        self.tracking.begin(self.state, Resources(), 2, FORM)

    def receive(self, trial: str, *messages: Any) -> None:
        for message in messages:
            self.state.receive(trial, message)
            self.tracking.change()

    def close(self) -> None:
        for trial in list(self.state.running):
            self.state.finish(trial)
        self.tracking.end()
        self.tracking.close()


def test_reports_status_reason_and_numbers_arrive_once(tmp_path: Path) -> None:
    ledger = Ledger()
    launch = Launch(tmp_path, ledger)
    launch.state.start(launch.state.plan({}), Resources())
    launch.receive("00000", BEGUN, reported(100, 2.5), reported(400, 2.25), FINISHED)
    launch.state.finish("00000")
    launch.tracking.change()
    play(launch.state, launch.state.plan({}), ended("rejected", "it leaks"))
    launch.tracking.change()
    launch.close()
    assert ledger.entries == [("00000", REPORT, 100), ("00000", REPORT, 400)]
    assert ledger.ends == [("00000", "finished", None), ("00001", "rejected", "it leaks")]
    assert ledger.numbers["00000"]["valid_bits_per_dim"] == 2.25
    metrics = ledger.metrics["00000", 400]
    assert metrics["valid_bits_per_dim"] == 2.25
    assert "attempt" not in metrics
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert launch.lines == []


def test_a_resumed_trial_and_a_later_launch_log_nothing_twice(tmp_path: Path) -> None:
    """The second attempt begins at 100 images and makes the report after 200 again."""
    kept: list[Entry] = []
    first = Ledger(kept)
    launch = Launch(tmp_path, first, scheduler=None)
    launch.state.start(launch.state.plan({}), Resources())
    launch.receive("00000", BEGUN, reported(100, 2.5), reported(200, 2.4))
    launch.close()
    assert first.ends == [("00000", "interrupted", "stopped before its end")]
    second = Ledger(kept)
    launch = Launch(tmp_path, second, scheduler=None)
    (plan,) = launch.state.plans_to_resume()
    launch.state.start(plan, Resources())
    launch.receive("00000", BEGUN | {"resumed": [reported(100, 2.5)["report"]]}, reported(200, 2.4))
    launch.state.retry("00000", "it crashed")
    launch.tracking.change()
    again = {"resumed": [reported(100, 2.5)["report"]]}
    launch.receive("00000", BEGUN | again, reported(200, 2.4), reported(400, 2.3), FINISHED)
    launch.state.finish("00000")
    launch.close()
    assert kept == [("00000", REPORT, images) for images in (100, 200, 400)]
    assert second.ends == [("00000", "finished", None)]


def test_a_tracker_that_is_added_later_gets_the_reports_of_before(tmp_path: Path) -> None:
    state = toy_state(tmp_path, toy_space(scheduler=None))
    play(state, state.plan({}), BEGUN, reported(100, 2.5))
    ledger = Ledger()
    launch = Launch(tmp_path, ledger, scheduler=None)
    launch.state.start(launch.state.plans_to_resume()[0], Resources())
    launch.receive("00000", BEGUN | {"resumed": [reported(100, 2.5)["report"]]}, reported(200, 2.4))
    launch.close()
    assert ledger.entries == [("00000", REPORT, 100), ("00000", REPORT, 200)]


def test_an_error_is_one_line_and_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_RETRY_SECONDS", 0.01)
    ledger = Ledger()
    errors = [ConnectionError("https://me:secret@host/api is gone\nwith more"), OSError("still"), ImportError("x")]

    def fail() -> None:
        if errors:
            raise errors.pop(0)

    ledger.broken = fail
    launch = Launch(tmp_path, ledger)
    launch.state.start(launch.state.plan({}), Resources())
    launch.receive("00000", BEGUN, reported(100, 2.5), reported(400, 2.25), FINISHED)
    deadline = time.monotonic() + 20
    while errors and time.monotonic() < deadline:
        time.sleep(0.01)
    launch.state.finish("00000")
    launch.close()
    assert ledger.entries == [("00000", REPORT, 100), ("00000", REPORT, 400)]
    assert len(launch.lines) == 1
    assert launch.lines[0].startswith("ledger cannot be written (https://***@host/api is gone")
    assert ledger.ends == [("00000", "finished", None)]


def test_a_tracker_that_hangs_delays_neither_the_search_nor_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_END_SECONDS", 0.05)
    release = threading.Event()
    ledger = Ledger()
    ledger.broken = lambda: release.wait(60) and None  # type: ignore[func-returns-value]
    launch = Launch(tmp_path, ledger)
    began = time.monotonic()
    for number in range(3):
        launch.state.start(launch.state.plan({"model.layers": 2 + number}), Resources())
        launch.receive(f"0000{number}", BEGUN, reported(100, 2.5))
    launch.close()
    assert time.monotonic() - began < 20
    assert launch.lines == ["ledger lacks the newest reports of up to 3 trials; the results have them all."]
    release.set()


def test_galleries_come_after_their_reports_and_those_of_the_end_last(tmp_path: Path) -> None:
    ledger = Ledger()
    launch = Launch(tmp_path, ledger, galleries=(0.1,))
    samples = Path(launch.state.store.samples_folder)
    samples.mkdir(parents=True)
    (samples / "00001-100-images.png").write_bytes(b"of another trial")
    launch.state.start(launch.state.plan({}), Resources())
    launch.receive("00000", BEGUN, reported(100, 2.5))
    (samples / "00000-100-images.png").write_bytes(b"png")
    launch.receive("00000", reported(200, 2.25), reported(400, 2.5), FINISHED)
    launch.state.finish("00000")
    launch.tracking.end()
    (samples / "00000.png").write_bytes(b"png")
    launch.tracking.close()
    assert sorted(ledger.entries) == sorted(
        [
            ("00000", REPORT, 100),
            ("00000", SAMPLES, 100),
            ("00000", REPORT, 200),
            ("00000", REPORT, 400),
            ("00000", SAMPLES_AT_END, 200),
        ]
    )
    assert ledger.ends[-1] == ("00000", "finished", None)


def test_callbacks_call_each_hook_of_all_in_order(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []

    class Noted(SearchCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def waiting(self, what: str) -> Iterator[None]:
            calls.append((self.name, f"waiting {what}"))
            yield
            calls.append((self.name, "waited"))

        def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
            assert (state.ended, resources, form) == ({}, Resources(), FORM)
            calls.append((self.name, f"begin {concurrent}"))

        def change(self) -> None:
            calls.append((self.name, "change"))

        def say(self, text: str) -> None:
            calls.append((self.name, text))

        def end(self) -> None:
            calls.append((self.name, "end"))

    both = Callbacks(Noted("a"), Noted("b"))
    with both.waiting("x"):
        both.begin(toy_state(tmp_path), Resources(), 2, FORM)
    both.change()
    both.say("hello")
    both.end()
    hooks = ["waiting x", "begin 2", "waited", "change", "hello", "end"]
    assert [name for name, call in calls if call == "waited"] == ["b", "a"]
    for hook in hooks:
        assert sorted(name for name, call in calls if call == hook) == ["a", "b"], hook
    assert [call for name, call in calls if name == "a"] == hooks
