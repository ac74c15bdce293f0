"""Early stopping: a trial is compared with the others at the same number of images. Ray-free.

A pruner's state follows from the stored rows and curves alone, so a resumed search prunes like an uninterrupted one.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from pixeltune.space import Asha, Median, Pareto, SearchSpace
from pixeltune.space.metrics import sign

Trace = Mapping[int, Sequence[float | None]]
"""The objectives of one trial, in the space's order, by training images seen; None where one is not known then. The
first is known always."""


class Pruner(ABC):
    """A rule for early stopping, applied at each report. A trial's value is its best so far, like its final value."""

    @abstractmethod
    def remember(self, trial: str, trace: Trace) -> None:
        """Replace what is known of a trial; an empty trace forgets it."""

    def remember_finished(self, trial: str, trace: Trace) -> None:
        """Replace what is known of a trial that has finished."""
        self.remember(trial, trace)

    @abstractmethod
    def should_prune(self, trial: str, trace: Trace) -> str | None:
        """Return why the trial should stop at the newest point of its trace, or None."""


class NopPruner(Pruner):
    """A pruner that stops no trial."""

    def remember(self, trial: str, trace: Trace) -> None:
        """Ignore the trial."""

    def should_prune(self, trial: str, trace: Trace) -> str | None:
        """Return None."""


class AshaPruner(Pruner):
    """Successive halving: at a rung a trial continues if it is among the best seen there so far."""

    def __init__(self, asha: Asha) -> None:
        self._reduction = asha.reduction
        self._values: dict[int, dict[str, float]] = {rung: {} for rung in asha.rungs}

    def remember(self, trial: str, trace: Trace) -> None:
        """Keep the trial's value at each rung."""
        for rung, values in self._values.items():
            values.pop(trial, None)
            if rung in trace:
                values[trial] = _best_until(rung, trace)

    def should_prune(self, trial: str, trace: Trace) -> str | None:
        """Compare the trial's rank at a rung."""
        rung = max(trace)
        if rung not in self._values:
            return None
        seen = self._values[rung]
        seen[trial] = value = _best_until(rung, trace)
        kept = math.ceil(len(seen) / self._reduction)
        rank = 1 + sum(other < value for other in seen.values())
        if rank <= kept:
            return None
        return f"rank {rank} of {len(seen)} at the rung of {rung} images, where the best {kept} go on"


class MedianPruner(Pruner):
    """The median rule: a trial continues while it is not worse than the median of the finished ones."""

    def __init__(self, median: Median) -> None:
        self._rule = median
        self._curves: dict[str, Trace] = {}
        self._finished: set[str] = set()

    def remember(self, trial: str, trace: Trace) -> None:
        """Keep the trial's curve; others are not compared with it before it finishes."""
        self._curves[trial] = dict(trace)
        self._finished.discard(trial)

    def remember_finished(self, trial: str, trace: Trace) -> None:
        """Keep the trial's whole curve."""
        self.remember(trial, trace)
        self._finished.add(trial)

    def should_prune(self, trial: str, trace: Trace) -> str | None:
        """Compare the trial at every report after the grace period."""
        images = max(trace)
        curves = [self._curves[name] for name in self._finished if name != trial]
        others = [_best_until(images, other) for other in curves if other and min(other) <= images <= max(other)]
        if images < self._rule.grace or len(others) < self._rule.completed:
            return None
        value, median = _best_until(images, trace), statistics.median(others)
        if value <= median:
            return None
        return f"{value:.4f} at {images} images, above the median {median:.4f} of {len(others)} finished trials"


class ParetoPruner(Pruner):
    """The Pareto rule: at a rung a trial continues unless another dominates it there by a margin; see `Pareto`."""

    def __init__(self, pareto: Pareto, objectives: Sequence[str]) -> None:
        self._margin = pareto.margin
        self._signs = [sign(name) for name in objectives]
        self._names = objectives
        self._losses: dict[int, dict[str, list[float | None]]] = {rung: {} for rung in pareto.rungs}

    def remember(self, trial: str, trace: Trace) -> None:
        """Keep the trial's objectives at each rung."""
        for rung, losses in self._losses.items():
            losses.pop(trial, None)
            if rung in trace:
                losses[trial] = self._loss(rung, trace)

    def should_prune(self, trial: str, trace: Trace) -> str | None:
        """Look for a trial that dominates this one at a rung."""
        rung = max(trace)
        if rung not in self._losses:
            return None
        own = self._losses[rung][trial] = self._loss(rung, trace)
        for name, other in self._losses[rung].items():
            if name != trial and self._dominates(other, own):
                return (
                    f"dominated at the rung of {rung} images by trial {name}: {self._names[0]} {other[0]:.4f} against "
                    f"{own[0]:.4f}, no worse in {', '.join(self._names[1:])}"
                )
        return None

    def _loss(self, rung: int, trace: Trace) -> list[float | None]:
        costs = [
            None if value is None else its_sign * value
            for its_sign, value in zip(self._signs[1:], trace[rung][1:], strict=True)
        ]
        return [_best_until(rung, trace), *costs]

    def _dominates(self, other: Sequence[float | None], own: Sequence[float | None]) -> bool:
        if None in other or None in own:
            return False
        gains = [mine - its for its, mine in zip(other, own, strict=True) if its is not None and mine is not None]
        return gains[0] >= self._margin and min(gains[1:]) >= 0


def pruner_for(space: SearchSpace) -> Pruner:
    """Return the pruner of a space's scheduler."""
    match space.scheduler:
        case Asha():
            return AshaPruner(space.scheduler)
        case Median():
            return MedianPruner(space.scheduler)
        case Pareto():
            return ParetoPruner(space.scheduler, space.objectives)
    return NopPruner()


def _best_until(images: int, trace: Trace) -> float:
    return min(values[0] for seen, values in trace.items() if seen <= images and values[0] is not None)
