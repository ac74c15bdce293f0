"""How each trial's end is reported to a study, in a form that the search's sampler can read.

A sampler that reads every state (tpe) gets:
    finished → COMPLETE. pruned, stopped → PRUNED with its best value so far at each report. diverged, oom → PRUNED with
    a violated constraint: as FAIL they would be invisible, and an invented bad value would count as a good one while
    few trials are complete. With several objectives a pruned trial is reported without its curve: TPE's `ask` raises on
    it.
A sampler that reads only finished trials (gp, cmaes, nsga2) would return to where the others ended. It gets:
    pruned, stopped → COMPLETE with what it had reached: its best value so far, seconds at the same pace to the end, and
    the worst of the finished ones where a value is not known. diverged, oom, out of bounds → COMPLETE and worse than
    every other trial in every objective, by how far it broke its bounds.
Both get failed, rejected → FAIL, because these say nothing about the configuration's quality; the same holds for a
trial that was stopped before its first report, a finished one that lacks a value, and one whose bits a real code does
not confirm. Trials that have not ended are RUNNING.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pixeltune.results.ranking import RANKED, is_unconfirmed
from pixeltune.results.schema import Status
from pixeltune.search.attempt import Row
from pixeltune.search.state import Curve
from pixeltune.space import SAMPLERS, SearchSpace
from pixeltune.space.metrics import GROWS, sign, violations

_DID_NOT_GET_THROUGH = {"got through": 1.0}
"""A constraint above 0 is violated."""

Values = tuple[float, ...]


@dataclass(frozen=True)
class TrialOutcome:
    """The form in which a trial's end is reported to a study."""

    state: TrialState
    values: Values | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)

    def to_frozen_trial(self, space: SearchSpace, suggestion: Mapping[str, Any]) -> FrozenTrial:
        """Return an Optuna trial with these values of the varied keys."""
        last = list(self.curve.values())[-1:]  # what Optuna itself takes for a pruned trial's value
        return optuna.trial.create_trial(
            state=self.state,
            params=dict(suggestion),
            distributions={key: space.vary[key] for key in suggestion},
            values=list(self.values) if self.values else last or None,
            intermediate_values=dict(self.curve),
            constraints=dict(self.constraints),
        )


FAILED = TrialOutcome(TrialState.FAIL)
PENDING = TrialOutcome(TrialState.RUNNING)


def trial_outcomes(space: SearchSpace, rows: Sequence[Row], curves: Sequence[Curve]) -> list[TrialOutcome]:
    """Return the outcome of each ended trial's row. curves: of `valid_bits_per_dim` or `valid_nats`, one per row."""
    if SAMPLERS[space.sampler].sees_all:
        return [_as_it_was(space, row, curve) for row, curve in zip(rows, curves, strict=True)]
    known = _worst_and_best(space, [values for row in rows if (values := _finished_values(space, row)) is not None])
    reached = [_reached(space, row, known) for row in rows]
    known = _worst_and_best(space, [values for values in reached if values is not None])
    return [_as_finished(space, row, values, known) for row, values in zip(rows, reached, strict=True)]


def _as_it_was(space: SearchSpace, row: Row, curve: Curve) -> TrialOutcome:
    status, bounds = _status(row), violations(space.constraints, row)
    if _says_nothing(row):
        return FAILED
    if status is Status.FINISHED and (values := _values(space, row)) is not None:
        return TrialOutcome(TrialState.COMPLETE, values=values, constraints=bounds)
    if status in (Status.PRUNED, Status.STOPPED):
        is_curve_of_objective = len(space.objectives) == 1 and space.objectives[0].startswith("valid_")
        points = sorted(curve.items()) if is_curve_of_objective else []
        best = itertools.accumulate((value for _, value in points), min)
        return TrialOutcome(TrialState.PRUNED, curve=dict(zip(dict(points), best, strict=True)), constraints=bounds)
    if status in (Status.DIVERGED, Status.OOM):
        return TrialOutcome(TrialState.PRUNED, constraints=_DID_NOT_GET_THROUGH)
    return FAILED


def _as_finished(
    space: SearchSpace, row: Row, reached: Values | None, known: list[tuple[float, float]]
) -> TrialOutcome:
    beyond = _beyond(space, row)
    if beyond == 0:
        return FAILED if reached is None else TrialOutcome(TrialState.COMPLETE, values=reached)
    if beyond is None or not known:
        return FAILED
    share = beyond / (1 + beyond)
    return TrialOutcome(
        TrialState.COMPLETE,
        values=tuple(
            worst + share * _step_back(name, worst, best)
            for name, (worst, best) in zip(space.objectives, known, strict=True)
        ),
    )


def _status(row: Row) -> Status:
    return Status.REJECTED if is_unconfirmed(row) else Status(row["status"])


def _says_nothing(row: Row) -> bool:
    """Return whether a trial was stopped by hand before its first report."""
    return row["status"] == Status.STOPPED and row["images_seen"] is None


def _beyond(space: SearchSpace, row: Row) -> float | None:
    """Return how far a trial broke its bounds, diverged or ran out of memory; None for other ends."""
    status = _status(row)
    if status in (Status.DIVERGED, Status.OOM):
        return sum(_DID_NOT_GET_THROUGH.values())
    if status not in RANKED or _says_nothing(row):
        return None
    return sum(max(0.0, share) for share in violations(space.constraints, row).values())


def _reached(space: SearchSpace, row: Row, known: list[tuple[float, float]]) -> Values | None:
    """Return the objectives of a trial within its bounds; those reached so far for a stopped one."""
    if _beyond(space, row) != 0:
        return None
    if row["status"] == Status.FINISHED:
        return _values(space, row)
    values = []
    for number, name in enumerate(space.objectives):
        value = row[name]
        if value is not None and name in GROWS:
            value *= (row["train.stop_after"] or row["train.images"]) / (row["images_seen"] or row["train.images"])
        if value is None and not known:
            return None
        values.append(float(known[number][0] if value is None else value))
    return tuple(values)


def _finished_values(space: SearchSpace, row: Row) -> Values | None:
    return _values(space, row) if row["status"] == Status.FINISHED and _beyond(space, row) == 0 else None


def _values(space: SearchSpace, row: Row) -> Values | None:
    values = [row[name] for name in space.objectives]
    return None if None in values else tuple(map(float, values))


def _worst_and_best(space: SearchSpace, points: Iterable[Values]) -> list[tuple[float, float]]:
    """Return the worst and best value of each objective; none without points."""
    columns = zip(*points, strict=True)
    ends = [(max(column), min(column)) for column in columns]
    return [
        (high, low) if sign(name) > 0 else (low, high)
        for name, (high, low) in zip(space.objectives, ends, strict=False)
    ]


def _step_back(name: str, worst: float, best: float) -> float:
    """Return a step towards worse values, as wide as the observed range."""
    return sign(name) * (abs(worst - best) or 0.1 * abs(worst) or 1.0)
