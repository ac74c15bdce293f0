"""Early stopping: asynchronous successive halving at exact rungs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pixeltune.space import Asha


class Rungs:
    """The values of all trials at each rung; a trial goes on while it is among the best of those seen there so far.

    A trial's value at a rung is its best so far, as its final value will be. A trial that comes to a rung again
    replaces its own value.
    """

    def __init__(self, asha: Asha) -> None:
        self._reduction = asha.reduction
        self._values: dict[int, dict[str, float]] = {rung: {} for rung in asha.rungs}

    def remember(self, trial: str, curve: Mapping[int, float]) -> None:
        """Take in what an earlier launch saw: the objective by images seen."""
        for rung, values in self._values.items():
            if rung in curve:
                values[trial] = _best_until(rung, curve)

    def judge(self, trial: str, curve: Mapping[int, float]) -> str | None:
        """Why the trial should stop at the newest point of its curve, or None."""
        rung = max(curve)
        if rung not in self._values:
            return None
        seen = self._values[rung]
        seen[trial] = value = _best_until(rung, curve)
        kept = math.ceil(len(seen) / self._reduction)
        rank = 1 + sum(other < value for other in seen.values())
        if rank <= kept:
            return None
        return f"rank {rank} of {len(seen)} at the rung of {rung} images, where the best {kept} go on"


def _best_until(rung: int, curve: Mapping[int, float]) -> float:
    return min(value for images, value in curve.items() if images <= rung)
