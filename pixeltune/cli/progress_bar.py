"""The progress of training, sampling or coding, and the time that it will take."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import is_quiet, say_progress
from pixeltune.format import counted, duration
from pixeltune.packages import has_package

if TYPE_CHECKING:
    from pixeltune.models import DensityModel

_SECONDS_BETWEEN_LINES = 60.0
"""Seconds between two lines of a training that does not write to a terminal."""


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


@contextmanager
def training_progress(images: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function to call with each `TrainingProgress`, as a dictionary.

    It is a bar on a terminal, and a line a minute elsewhere. images: after which the training ends.
    """
    if is_quiet():
        yield lambda _progress: None
    elif sys.stdout.isatty() and has_package("rich"):
        with _training_bar(images) as show:
            yield show
    else:
        yield partial(_say_now_and_then, images, [time.monotonic()])


@contextmanager
def _training_bar(images: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("the first steps", total=images)

        def show(progress: Mapping[str, Any]) -> None:
            bar.update(task, completed=progress["images_seen"], description=_training_line(images, progress))

        yield show


def _say_now_and_then(images: int, said_at: list[float], progress: Mapping[str, Any]) -> None:
    if time.monotonic() - said_at[0] >= _SECONDS_BETWEEN_LINES:
        said_at[0] = time.monotonic()
        say_progress(f"          {_training_line(images, progress)}")


def _training_line(images: int, progress: Mapping[str, Any]) -> str:
    seen, speed, bits = (progress[name] for name in ("images_seen", "images_per_second", "train_bits_per_dim"))
    left = f", {duration((images - seen) / speed)} left" if speed else ""
    loss = "" if bits is None else f"train {bits:.4f} bits/dim, "
    return f"{seen:,} of {images:,} images, {loss}{speed:,.3g} images/s{left}"


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
