"""Early stopping: asynchronous successive halving at exact rungs, and its seat in Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pixeltune.space import Asha


class Rungs:
    """The values of all trials at each rung; a trial goes on while it is among the best of those seen there so far.

    A trial's value at a rung is its best so far, as its final value will be. Trials that are told again (a resumed
    search) replace their own value.
    """

    def __init__(self, asha: Asha, objective: str) -> None:
        self._asha = asha
        self._objective = objective
        self._values: dict[int, dict[str, float]] = {rung: {} for rung in asha.rungs}

    def remember(self, trial: str, reports: Mapping[int, Mapping[str, Any]]) -> None:
        """Take in a curve of an earlier launch."""
        for rung in self._asha.rungs:
            if rung in reports:
                self._values[rung][trial] = self._value_at(rung, reports)

    def judge(self, trial: str, reports: Mapping[int, Mapping[str, Any]]) -> str | None:
        """Why the trial should stop at its newest report, or None."""
        rung = max(reports)
        if rung not in self._values:
            return None
        value = self._value_at(rung, reports)
        seen = self._values[rung]
        seen[trial] = value
        kept = math.ceil(len(seen) / self._asha.reduction)
        rank = 1 + sum(other < value for other in seen.values())
        if rank <= kept:
            return None
        return f"rank {rank} of {len(seen)} at the rung of {rung} images, where the best {kept} go on"

    def _value_at(self, rung: int, reports: Mapping[int, Mapping[str, Any]]) -> float:
        return min(float(report[self._objective]) for images, report in reports.items() if images <= rung)
