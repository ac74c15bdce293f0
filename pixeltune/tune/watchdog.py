"""Timeouts for trials that send no message, and for a launcher whose own loop is stuck. Ray-free.

Only monotonic clocks are used: a wall clock may be set while a search runs.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pixeltune.search.messages import Message
from pixeltune.space import Patience

_LONGEST_LOOK = 10.0
"""Most seconds that count between two looks. The watchdog itself may have been suspended (machine, slow disk,
Ctrl-Z) and then has missed messages."""

EXIT_STALLED = 3
"""The exit code of a launcher that ended itself because it was stuck."""


@dataclass
class _Heard:
    """A trial's messages. since: time of the last one; reported: time of the last report, or of the start of training.

    expected: seconds that it announced until its next message. Times are those of the watchdog.
    """

    since: float
    reported: float
    begun: bool = False
    expected: float = 0.0
    intervals: list[float] = field(default_factory=list)


class Watchdog:
    """A record of messages that finds trials which have been silent for too long.

    A trial's usual time is the median of its own times between reports. Before the first report it is the trial's
    estimate from one pass of its network, times the factor by which others exceeded their estimates.
    """

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._looked = clock()
        self._now = 0.0
        self._heard: dict[str, _Heard] = {}
        self._starts: list[float] = []
        self._slower: list[float] = []

    @property
    def now(self) -> float:
        """Return the seconds that were watched so far."""
        return self._now

    def look(self) -> float:
        """Advance the clock and return `now`; call it often."""
        clock = self._clock()
        self._now += min(clock - self._looked, _LONGEST_LOOK)
        self._looked = clock
        return self._now

    def begin(self, trial: str) -> None:
        """Start an attempt; the trial's intervals so far are kept."""
        before = self._heard.get(trial)
        self._heard[trial] = _Heard(self._now, self._now, intervals=before.intervals if before else [])

    def wait(self, trial: str) -> None:
        """Note that the trial's attempt is over and another will begin."""
        if trial in self._heard:  # it may have ended before it began
            self._heard[trial].since = math.inf

    def hear(self, trial: str, message: Message) -> None:
        """Note a message of `run_trial`."""
        heard = self._heard[trial]
        if not heard.begun:
            self._starts.append(self._now - heard.since)
            heard.begun, heard.reported = True, self._now
        if "report" in message:
            interval = self._now - heard.reported
            if not heard.intervals and heard.expected:
                self._slower.append(interval / heard.expected)
            heard.intervals.append(interval)
            heard.reported, heard.expected = self._now, 0.0
        heard.since = self._now
        if "expects_seconds" in message:
            heard.expected = message["expects_seconds"]

    def forget(self, trial: str) -> None:
        """Forget a trial that no longer runs."""
        self._heard.pop(trial, None)

    def silent(self) -> dict[str, str]:
        """Return the trials that have been silent for longer than allowed, each with the reason as text."""
        return {trial: self._words(heard) for trial, heard in self._heard.items() if self._is_late(heard)}

    def _is_late(self, heard: _Heard) -> bool:
        return self._now - heard.since > self._limit(heard)

    def _limit(self, heard: _Heard) -> float:
        patience = self._patience
        if not heard.begun:
            return max(60 * patience.start_minutes, patience.times * median(self._starts or [0.0]))
        return max(60 * patience.minutes, patience.times * max(self._usual(heard), heard.expected))

    def _usual(self, heard: _Heard) -> float:
        if heard.intervals:
            return median(heard.intervals)
        return heard.expected * max(1.0, median(self._slower or [1.0]))

    def _words(self, heard: _Heard) -> str:
        silence = f"no report in {self._now - heard.since:.0f} s"
        if not heard.begun:
            return f"{silence} after its start, where {self._limit(heard):.0f} s are allowed"
        what = f"its reports come every {self._usual(heard):.2g} s" if heard.intervals else "its first was to come"
        return f"{silence}, where {what} and {self._limit(heard):.0f} s are allowed"


class LeakedPlacementGroups:
    """Groups of reserved resources that have been unused for long, as a killed trial may leave them."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._empty_since: dict[str, float] = {}

    def leaked(self, groups: Iterable[str], used: Container[str], now: float) -> list[str]:
        """Return the `groups` that have been empty at every look for longer than the limit."""
        empty = [group for group in groups if group not in used]
        self._empty_since = {group: self._empty_since.get(group, now) for group in empty}
        leaked = [group for group, since in self._empty_since.items() if now - since > self._limit]
        self._empty_since |= dict.fromkeys(leaked, now)  # reported once, while they are being removed
        return leaked


class LauncherWatchdog:
    """A thread that ends the launcher when its main thread has not called `beat` for long.

    Python cannot interrupt the cause: a disk that does not answer, a call into Ray. The rows are in the store, and the
    same command resumes from them.
    """

    def __init__(self, limit: float, *, tick: float = 1.0, leave: Callable[[int], Any] = os._exit) -> None:
        self._limit = limit
        self._tick = tick
        self._leave = leave
        self._silence = 0.0
        self._done = threading.Event()
        self._main = threading.get_ident()

    def beat(self) -> None:
        """Record that the main thread is alive."""
        self._silence = 0.0

    @contextmanager
    def watching(self) -> Iterator[LauncherWatchdog]:
        """Run the thread inside the `with` block."""
        thread = threading.Thread(target=self._watch, daemon=True, name="pixeltune-heartbeat")
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._done.wait(self._tick):
            now = time.monotonic()
            self._silence += min(now - before, _LONGEST_LOOK)  # a suspended launcher was not stuck
            before = now
            if self._silence > self._limit:
                print(
                    f"pixeltune: a search must go on, but for {self._silence:.0f} s this launch has been stuck in "
                    f"{self._where()}; its results are kept; run the same command again to resume",
                    file=sys.stderr,
                    flush=True,
                )
                self._leave(EXIT_STALLED)
                return

    def _where(self) -> str:
        """Return the main thread's innermost line."""
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return "a thread that is gone"
        last = traceback.extract_stack(frame)[-1]
        return f"{last.name} ({last.filename}:{last.lineno})"
