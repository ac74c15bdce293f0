"""The varied keys as axes: logarithmic if sampled so, choices next to each other, and which trials have them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixeltune.report.figures.chart import log_ticks, plain, short
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import title_of
from pixeltune.results.own_keys import has_key
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


_GOLDEN = 0.6180339887
"""Its multiples modulo one are spread evenly for any number of them."""


@dataclass(frozen=True)
class KeyAxis:
    """A varied key.

    Attributes:
        choices: Its values where they have no order, else none.
        low, high: Range of the trials' values.
        is_whole: Whether all values are whole numbers.
    """

    key: str
    choices: Sequence[Any] = ()
    is_log: bool = False
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False

    @property
    def title(self) -> str:
        """Return its title, as in tables."""
        return title_of(self.key)

    def position(self, value: Any) -> float:
        """Return the position of a value between 0 and 1: in the middle where all are equal."""
        if self.choices:
            count = len(self.choices)
            return list(map(str, self.choices)).index(str(value)) / (count - 1) if count > 1 else 0.5
        low, high, at = (math.log(number) if self.is_log else number for number in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.5

    def at(self, value: Any, index: int) -> float:
        """Return the coordinate of the `index`th point of a figure; points of one choice are spread out."""
        if not self.choices:
            return float(value)
        slot = list(map(str, self.choices)).index(str(value))
        return slot + 0.5 * ((index * _GOLDEN) % 1 - 0.5)

    def layout(self) -> dict[str, Any]:
        """Return plotly's settings of the axis."""
        title = {"title": {"text": plain(self.title)}}
        if self.choices:
            names = [plain(choice) for choice in self.choices]
            ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
            return title | ticks | {"range": [-0.6, len(names) - 0.4]}
        if self.is_log:
            return title | log_ticks([self.low, self.high])
        padding = 0.05 * (self.high - self.low) or 0.5
        step = {"dtick": _whole_step(self.high - self.low)} if self.is_whole else {}
        return title | step | {"range": [self.low - padding, self.high + padding]}

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions between 0 and 1 with their texts, few enough to be read one above the other."""
        if self.choices:
            return [(self.position(choice), str(choice)) for choice in self.choices]
        if self.is_log:
            inner = log_ticks([self.low, self.high])["tickvals"]
        else:
            step = _whole_step(self.high - self.low) if self.is_whole else _step((self.high - self.low) / 5)
            first = math.ceil(self.low / step)
            inner = [step * count for count in range(first, math.floor(self.high / step) + 1)]
        marks = [self.low, self.high, *(mark for mark in inner if self.low < mark < self.high)]
        kept: list[tuple[float, str]] = []
        for mark in marks:
            if all(abs(self.position(mark) - other) > 0.06 for other, _ in kept):
                kept.append((self.position(mark), short(mark)))
        return kept


def measured(snapshot: Snapshot, statuses: Sequence[str] = RANKED) -> list[Row]:
    """Return the trials with these outcomes whose first objective is known."""
    return [row for row in snapshot.configurations if row["status"] in statuses and row[snapshot.objective] is not None]


def axes_of(snapshot: Snapshot, rows: Sequence[Row]) -> list[KeyAxis]:
    """Return an axis for each varied key that `rows` differ in."""
    found = [_axis(key, distribution, rows) for key, distribution in snapshot.manifest.searched().items()]
    return [axis for axis in found if axis is not None]


def has(axis: KeyAxis, row: Mapping[str, Any]) -> bool:
    """Return whether a trial has the key: `likelihood.mixtures` exists for a mixture alone."""
    return has_key(dict(row), axis.key)


def _axis(key: str, distribution: BaseDistribution, rows: Sequence[Row]) -> KeyAxis | None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = [row[key] for row in rows if has_key(row, key)]
    if len(set(values)) < 2:
        return None
    if isinstance(distribution, CategoricalDistribution):
        return KeyAxis(key, [choice for choice in distribution.choices if choice in values])
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if any(value is None for value in values):
        return None
    return KeyAxis(key, (), bool(distribution.log), min(values), max(values), isinstance(distribution, IntDistribution))


def _step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _whole_step(spread: float) -> float:
    """Return the step between ticks of whole numbers: 1 where they are few."""
    return max(1.0, _step(spread / 8)) if spread else 1.0
