"""The aims of a budget, from the rows of a search alone: its target, and trials in a row without an improvement.

Only finished trials count: the numbers of others are those of less training. Of these, a trial that breaks a
constraint, or whose bits a real code refutes, reaches no target and improves nothing. In a search with repeats the mean
of a configuration counts, as one trial, and reaches a target once all of its seeds have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import can_be_best
from pixeltune.results.repeats import is_settled, merge_repeats
from pixeltune.results.schema import Status
from pixeltune.space.metrics import sign


def in_order_of_end(rows: Iterable[Row]) -> list[Row]:
    """Return ended trials in the order in which they ended."""
    return sorted(rows, key=lambda row: (row["finished_at"] or row["started_at"], row["number"]))


def first_at_target(
    rows: Iterable[Row], objective: str, target: float, constraints: Mapping[str, float] | None = None
) -> Row | None:
    """Return the first trial to end whose `objective` is at the target or better; None if none is.

    Args:
        rows: The latest rows of the trials.
        objective: A name of METRICS, whose direction decides what is better.
        target: The value to reach.
        constraints: Metric → bound.
    """
    reached = (
        row
        for row in merge_repeats(rows)
        if row["status"] == Status.FINISHED
        and is_settled(row)
        and can_be_best(row, (objective,), constraints)
        and sign(objective) * row[objective] <= sign(objective) * target
    )
    return next(iter(in_order_of_end(reached)), None)


def trials_without_improvement(
    rows: Iterable[Row], objective: str, min_delta: float = 0.0, constraints: Mapping[str, float] | None = None
) -> int:
    """Return how many finished trials in a row, up to the last one, did not improve the objective.

    An improvement is better than the best trial at the last improvement, by at least `min_delta`; several small steps
    in a row so add up to one. The first trial with a value is an improvement.

    Args:
        rows: The latest rows of the trials.
        objective: A name of METRICS, whose direction decides what is better.
        min_delta: What an improvement is at least.
        constraints: Metric → bound.
    """
    best, count = None, 0
    for row in in_order_of_end(row for row in merge_repeats(rows) if row["status"] == Status.FINISHED):
        count += 1
        if not can_be_best(row, (objective,), constraints):
            continue
        loss = sign(objective) * row[objective]
        if best is None or (loss < best and best - loss >= min_delta):
            best, count = loss, 0
    return count
