"""How far sampling or coding is, and how long it will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from pixeltune.models import DensityModel


@contextmanager
def network_calls(
    out: Console, model: DensityModel, count: int, batch_size: int | None = None, walks: int = 1
) -> Iterator[Callable[[int], None]]:
    """Show a bar; what is yielded is told of network calls that are done. The first hundredth tells the time it takes.

    batch_size: images a call; None for all. walks: over all images.
    """
    calls = (int(model.order().max()) + 1) * math.ceil(count / (batch_size or count)) * walks
    clock = _Clock(calls)
    with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("network calls", total=calls)

        def advance(done: int) -> None:
            progress.advance(task, done)
            seconds = clock.forecast(done)
            if seconds is not None:
                out.print(f"{count:,} images, {calls:,} network calls, about {seconds:.0f} s", highlight=False)

        yield advance


class _Clock:
    """Tells once how long all calls will take; what is told first of them warmed up, and does not count."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._done = 0
        self._warm: tuple[int, float] | None = None
        self._is_told = False

    def forecast(self, done: int) -> float | None:
        """Seconds of all calls, once a hundredth of them tell; else None."""
        self._done += done
        if self._warm is None:
            self._warm = self._done, time.monotonic()
            return None
        since = self._done - self._warm[0]
        if self._is_told or since < self._calls / 100 or not since:
            return None
        self._is_told = True
        return self._calls * (time.monotonic() - self._warm[1]) / since
