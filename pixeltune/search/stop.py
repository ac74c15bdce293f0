"""When a search ends: a limit of its budget, or Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pixeltune.search.ledger import Ledger
from pixeltune.search.listener import Listener
from pixeltune.space import SearchSpace


def nothing_left(space: SearchSpace, ledger: Ledger) -> str | None:
    """Why no trial is left to run, or None."""
    budget = space.budget
    if len(ledger.ended) >= budget.trials:
        return f"all {budget.trials} trials are done"
    if space.num_configurations is not None and len(ledger.ended) >= space.num_configurations:
        tried = {frozenset(space.suggestion_of(row).items()) for row in ledger.ended.values()}
        if len(tried) >= space.num_configurations:
            return f"all {space.num_configurations} configurations of the space are tried"
    if budget.images is not None and ledger.spent_images() >= budget.images:
        return f"the budget of {budget.images:,} images is spent"
    if budget.gpu_hours is not None and ledger.spent_gpu_hours() >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} GPU-hours is spent"
    return None


class Stop:
    """Whether the search should end now, and why: a limit of its budget, or the user."""

    def __init__(self, space: SearchSpace, ledger: Ledger) -> None:
        self._space = space
        self._ledger = ledger
        self._started = time.monotonic()
        self.reason: str | None = None
        self.by_hand = False

    def due(self) -> bool:
        """Whether the search ends at this moment."""
        budget = self._space.budget
        if self.reason is None and budget.hours and time.monotonic() - self._started > budget.hours * 3600:
            self.reason = f"the {budget.hours:g} hours of this launch are over"
        if self.reason is None and len(self._ledger.ended) < budget.trials:
            self.reason = nothing_left(self._space, self._ledger)
        return self.reason is not None

    def interrupt(self) -> None:
        """The user wants it to end."""
        self.reason, self.by_hand = "interrupted", True


@contextmanager
def interrupts(stop: Stop, listener: Listener) -> Iterator[None]:
    """Ctrl-C ends the search after this moment's bookkeeping; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.by_hand:
            raise KeyboardInterrupt
        stop.interrupt()
        listener.say("Stopping: running trials keep their last checkpoint. Ctrl-C again to leave at once.")

    before: dict[signal.Signals, Any] = {}
    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, handle)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
