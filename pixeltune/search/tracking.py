"""What a search shows in trackers, such as TensorBoard: its trials as they report and end, without delaying any.

The driver sees every report, of one worker or of many, and hands a snapshot of the trial to one thread a tracker. A
snapshot has all reports so far, and a thread logs those that its library lacks. So nothing is logged twice: not by a
resumed trial, not by a later launch, and not after an error of the library, which is tried again.
"""

from __future__ import annotations

import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from pixeltune import files
from pixeltune.config import ImageSpec
from pixeltune.errors import first_line
from pixeltune.format import counted
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import Row, RunningAttempt
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.messages import STOPPED
from pixeltune.search.state import SearchState
from pixeltune.space import Resources

REPORT, SAMPLES, SAMPLES_AT_END = "report", "samples", "samples_at_end"
"""What a tracker shows of a trial at a number of images: numbers, a gallery, and the gallery that ends a search."""

_NO_METRICS = ("images_seen", "attempt")
_NUMBERS = (
    "valid_bits_per_dim",
    "valid_nats",
    "test_bits_per_dim",
    "test_nats",
    "baseline_bits_per_dim",
    "images_seen",
    "best_images_seen",
    "num_parameters",
    "sample_images_per_second",
    "train_seconds",
    "gpu_seconds",
    "dollars",
)
"""Columns of a row that a tracker shows as the numbers of an ended trial."""
_RETRY_SECONDS = 30.0
_END_SECONDS = 20.0
"""Longest wait, when a search ends, for trackers that have not logged everything."""


@dataclass(frozen=True)
class TrialSnapshot:
    """A trial as it was at one moment.

    Attributes:
        trial: Its id.
        config: Its dotted keys with their values.
        reports: All of its reports, by images seen.
        status: Its status.
        reason: Why it ended, if there is something to say.
        row: The row of a trial that has ended; empty while it runs.
    """

    trial: str
    config: Mapping[str, Any]
    reports: Sequence[Row]
    status: str = Status.RUNNING
    reason: str | None = None
    row: Row = field(default_factory=dict)

    @classmethod
    def of_running(cls, attempt: RunningAttempt) -> TrialSnapshot:
        """Return a running trial as it is now."""
        return cls(attempt.plan.trial, attempt.plan.config.flat(), attempt.in_order())

    def ended_as(self, row: Row) -> TrialSnapshot:
        """Return the trial with the row of its end."""
        return TrialSnapshot(self.trial, self.config, self.reports, str(row["status"]), row["reason"], row)

    def numbers(self) -> dict[str, float]:
        """Return the numbers of an ended trial: those of its best report, and what it cost."""
        return finite_numbers({name: self.row.get(name) for name in _NUMBERS})


class TrialLog(ABC):
    """One trial in a tracker; all attempts of the trial continue it."""

    @abstractmethod
    def has(self, kind: str, images: int) -> bool:
        """Return whether an earlier launch, or an earlier try of this one, has logged this."""

    @abstractmethod
    def log(self, images: int, at: datetime, numbers: Mapping[str, float]) -> None:
        """Log the numbers of the report after so many images."""

    @abstractmethod
    def show(self, kind: str, images: int, png: bytes) -> None:
        """Log a gallery that was drawn after so many images."""

    @abstractmethod
    def flush(self) -> None:
        """Hand over what was logged, so that the trial can be watched and is not logged again."""

    @abstractmethod
    def end(self, snapshot: TrialSnapshot) -> None:
        """Log the status, the reason and the numbers of a trial that ended, and close it."""

    def drop(self) -> None:  # noqa: B027
        """Close it after an error, without its end; it may be opened again."""


class Tracker(ABC):
    """A library that shows trials. Its package is imported when the first trial is opened."""

    name: ClassVar[str]

    def __init__(self, store: SearchStore) -> None:
        self.store = store

    @abstractmethod
    def open(self, snapshot: TrialSnapshot) -> TrialLog:
        """Begin or continue the log of a trial."""


class Tracking(SearchCallback):
    """The callback that shows a search in trackers.

    Args:
        trackers: Where.
        store: The results of the search.
        warn: Prints a line for the user.
    """

    def __init__(self, trackers: Sequence[Tracker], store: SearchStore, warn: Callable[[str], None]) -> None:
        self._store = store
        self._workers = [_TrackerThread(tracker, store, warn) for tracker in trackers]
        self._state: SearchState | None = None
        self._seen: dict[str, int] = {}
        self._open: dict[str, TrialSnapshot] = {}
        self._ended: set[str] = set()
        self._pictures_before: set[str] = set()

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:  # noqa: ARG002
        """Start the trackers; trials that have ended before are not logged."""
        self._state = state
        self._ended = set(state.ended)
        self._pictures_before = self._pictures()
        for worker in self._workers:
            worker.start(has_galleries=bool(state.space.galleries))

    def change(self) -> None:
        """Hand over the trials that started, reported or ended since."""
        if self._state is None:
            return
        for trial, attempt in list(self._state.running.items()):
            version = len(attempt.new_reports) + 10_000 * attempt.plan.attempt
            if self._seen.get(trial) != version:
                self._seen[trial] = version
                self._open[trial] = TrialSnapshot.of_running(attempt)
                self._submit(self._open[trial])
        for trial in self._state.ended.keys() - self._ended:
            self._ended.add(trial)
            self._finish(trial, self._state.ended[trial])

    def end(self) -> None:
        """Hand over the trials that did not come to an end."""
        if self._state is None:
            return
        self.change()
        for trial in list(self._open):
            row = self._state.unfinished_row(trial) or {"status": Status.INTERRUPTED, "reason": STOPPED}
            self._finish(trial, row)

    def close(self) -> None:
        """Hand over the galleries that the end of the search drew, and wait a limited time for the trackers."""
        if self._state is None:
            return
        for trial in sorted(self._pictures() - self._pictures_before):
            if (row := self._state.ended.get(trial)) is not None:
                config = self._state.space.configure(self._state.space.suggestion_of(row)).flat()
                self._submit(TrialSnapshot(trial, config, ()).ended_as(row))
        until = time.monotonic() + _END_SECONDS
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.wait(until)

    def _finish(self, trial: str, row: Row) -> None:
        self._seen.pop(trial, None)
        known = self._open.pop(trial, None)
        if known is None:  # it ended before it began
            assert self._state is not None
            space = self._state.space
            known = TrialSnapshot(trial, space.configure(space.suggestion_of(row)).flat(), ())
        self._submit(known.ended_as(row))

    def _submit(self, snapshot: TrialSnapshot) -> None:
        for worker in self._workers:
            worker.submit(snapshot)

    def _pictures(self) -> set[str]:
        """Return the trials that have the samples of the end of a search."""
        with suppress(Exception):  # errors of the storage are reported by the search itself
            return {name.removesuffix(".png") for name in files.list_names(self._store.samples_folder, ".png")}
        return set()


class _TrackerThread:
    """The thread that hands trials to one tracker, each as it is at its newest snapshot."""

    def __init__(self, tracker: Tracker, store: SearchStore, warn: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._store = store
        self._warn = warn
        self._has_galleries = False
        self._has_warned = False
        self._is_closing = False
        self._waiting: dict[str, TrialSnapshot] = {}
        self._at_work: set[str] = set()
        self._logs: dict[str, TrialLog] = {}
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"track {tracker.name}", daemon=True)

    def start(self, *, has_galleries: bool) -> None:
        self._has_galleries = has_galleries
        self._thread.start()

    def submit(self, snapshot: TrialSnapshot) -> None:
        with self._condition:
            before = self._waiting.get(snapshot.trial)
            if before is not None and not snapshot.reports:
                snapshot = TrialSnapshot(before.trial, before.config, before.reports).ended_as(snapshot.row)
            self._waiting[snapshot.trial] = snapshot
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._is_closing = True
            self._condition.notify()

    def wait(self, until: float) -> None:
        """Wait until everything is logged; report what is not."""
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._condition:
            left = {*self._waiting, *self._at_work}
        if left:
            missing = f"{self._tracker.name} lacks the newest reports of up to {counted(len(left), 'trial')}"
            self._warn(f"{missing}; the results have them all.")

    def _run(self) -> None:
        while True:
            with self._condition:
                self._at_work = set()
                self._condition.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                trial = next(iter(self._waiting))
                snapshot = self._waiting.pop(trial)
                self._at_work = {trial}
                is_last_try = self._is_closing
            try:
                self._log(snapshot)
            except Exception as error:
                self._fail(snapshot, error)
                if is_last_try:
                    return

    def _fail(self, snapshot: TrialSnapshot, error: Exception) -> None:
        """Report the first error, and wait before the trial is tried again."""
        if not self._has_warned:
            self._has_warned = True
            reason = without_passwords(first_line(error, type(error).__name__))
            self._warn(f"{self._tracker.name} cannot be written ({reason}); this is tried again, and the rest goes on.")
        log = self._logs.pop(snapshot.trial, None)
        if log is not None:
            with suppress(Exception):
                log.drop()
        with self._condition:
            self._waiting.setdefault(snapshot.trial, snapshot)
            self._condition.wait_for(lambda: self._is_closing, timeout=_RETRY_SECONDS)

    def _log(self, snapshot: TrialSnapshot) -> None:
        """Log what the tracker does not have of a trial."""
        trial = snapshot.trial
        log = self._logs.get(trial)
        if log is None:
            log = self._logs[trial] = self._tracker.open(snapshot)
        reports = {report["images_seen"]: report for report in snapshot.reports}
        pictures = dict(self._galleries(snapshot))
        for images in sorted({*reports, *(images for _kind, images in pictures)}):
            if images in reports and not log.has(REPORT, images):
                metrics = {name: value for name, value in reports[images].items() if name not in _NO_METRICS}
                log.log(images, reports[images]["reported_at"], finite_numbers(metrics))
            for kind in (SAMPLES, SAMPLES_AT_END):
                if (kind, images) in pictures and not log.has(kind, images):
                    log.show(kind, images, files.read_whole(pictures[kind, images]))
        log.flush()
        if snapshot.status != Status.RUNNING:
            log.end(snapshot)
            del self._logs[trial]

    def _galleries(self, snapshot: TrialSnapshot) -> Iterator[tuple[tuple[str, int], str]]:
        """Yield kind, images and file of each gallery that there is of a trial."""
        if snapshot.row:
            drawn_after = snapshot.row.get("best_images_seen") or snapshot.row.get("images_seen")
            location = self._store.gallery(snapshot.trial)
            if drawn_after and files.exists(location):
                yield (SAMPLES_AT_END, drawn_after), location
        if self._has_galleries:
            for name in files.list_names(self._store.samples_folder, ".png"):
                if found := re.fullmatch(rf"{snapshot.trial}-(\d+)-images\.png", name):
                    yield (SAMPLES, int(found[1])), files.join(self._store.samples_folder, name)


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are finite numbers."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def without_passwords(text: str) -> str:
    """Return a text in which `***` takes the place of user names and passwords of addresses."""
    return re.sub(r"//[^@/\s]+@", "//***@", text)
