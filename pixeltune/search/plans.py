"""What a search asks for its next trial: a suggester, or a list that is known before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from pixeltune.search.ledger import Ledger, Plan, Row
from pixeltune.space import FinalSpace


class Planner(Protocol):
    """Plans trials one by one, and hears how each ends."""

    def next_plan(self) -> Plan:
        """The next attempt to run."""

    def tell(self, row: Row) -> None:
        """How a planned trial ended."""

    def give_up(self, plan: Plan) -> None:
        """A planned trial does not run; it will be planned again."""


class ListedPlans:
    """The trials of a final: first those to resume, then the rest of the list.

    waiting: in place of those to resume.
    """

    def __init__(self, space: FinalSpace, ledger: Ledger, *, waiting: Sequence[Plan] | None = None) -> None:
        self._ledger = ledger
        self._waiting = deque(ledger.plans_to_resume() if waiting is None else waiting)
        self._suggestions = space.suggestions()

    def next_plan(self) -> Plan:
        """The next attempt to run."""
        if self._waiting:
            return self._waiting.popleft()
        return self._ledger.plan(self._suggestions[self._ledger.planned])

    def tell(self, row: Row) -> None:
        """Nothing follows from how a trial ends."""

    def give_up(self, plan: Plan) -> None:
        """Nor from that."""
