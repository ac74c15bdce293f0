"""What a search asks for its next trial: a suggester, or a list that is known before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from pixeltune.search.attempts import Plan
from pixeltune.search.ledger import Ledger
from pixeltune.space import FinalSpace


class Planner(Protocol):
    """Plans trials one by one; how each ends is in the ledger. is_exhausted: whether one was asked for in vain."""

    is_exhausted: bool

    def next_plan(self) -> Plan | None:
        """Return the next attempt to run; None if there is nothing left to try."""


class ListedPlans:
    """The trials of a final: first those to resume, then the rest of the list.

    waiting: in place of those to resume.
    """

    def __init__(self, space: FinalSpace, ledger: Ledger, *, waiting: Sequence[Plan] | None = None) -> None:
        self.is_exhausted = False
        self._ledger = ledger
        self._waiting = deque(ledger.plans_to_resume() if waiting is None else waiting)
        self._suggestions = space.suggestions()

    def next_plan(self) -> Plan:
        """The next attempt to run."""
        if self._waiting:
            return self._waiting.popleft()
        return self._ledger.plan(self._suggestions[self._ledger.next_number])
