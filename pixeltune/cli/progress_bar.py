"""The progress of sampling or coding, and the time that it will take."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pixeltune.cli.common import is_quiet, say_progress
from pixeltune.errors import has_package
from pixeltune.format import counted

if TYPE_CHECKING:
    from pixeltune.models import DensityModel


@contextmanager
def network_calls(
    model: DensityModel, count: int, batch_size: int | None = None, *, walks: int = 1, tells_time: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of network calls done; print the estimated time after a hundredth.

    batch_size: images per call; None for all. walks: passes over all images. tells_time: False if calls differ in cost.
    """
    calls = (int(model.order().max()) + 1) * math.ceil(count / (batch_size or count)) * walks
    clock = _Clock(calls)
    with _bar(calls) as show:

        def advance(done: int) -> None:
            show(done)
            seconds = clock.forecast(done)
            if seconds is not None and tells_time:
                say_progress(f"{counted(count, 'image')}, {counted(calls, 'network call')}, about {seconds:.0f} s")

        yield advance


@contextmanager
def _bar(calls: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar on a terminal if rich is installed."""
    if is_quiet() or not (sys.stdout.isatty() and has_package("rich")):
        yield lambda _done: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        yield partial(progress.advance, progress.add_task("network calls", total=calls))


class _Clock:
    """A forecast, made once, of the time of all calls; the first reported calls are a warm-up and do not count."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._done = 0
        self._warm: tuple[int, float] | None = None
        self._is_forecast = False

    def forecast(self, done: int) -> float | None:
        """Return the seconds of all calls once, when a hundredth of them are done; else None."""
        self._done += done
        if self._warm is None:
            self._warm = self._done, time.monotonic()
            return None
        since = self._done - self._warm[0]
        if self._is_forecast or since < self._calls / 100 or not since:
            return None
        self._is_forecast = True
        return self._calls * (time.monotonic() - self._warm[1]) / since
