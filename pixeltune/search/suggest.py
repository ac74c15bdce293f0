"""What to try next: an Optuna study that is told how every trial really ended. Ray-free.

finished → COMPLETE with its objectives. pruned → PRUNED with the value it had at each rung. diverged and oom →
COMPLETE with the worst value seen (at least that of a uniform guess), so that the sampler leaves the region: told as
FAIL they are invisible to TPE, which then proposes the same region again. failed, rejected, interrupted → FAIL, for
they say nothing about the configuration's worth.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from pixeltune.results.schema import Status
from pixeltune.search.ledger import Ledger, Plan, Row
from pixeltune.space import METRICS, SearchSpace

_UNWELCOME = (Status.DIVERGED, Status.OOM)


class Suggester:
    """Plans the next trial: first those to resume, then the base configuration, then the sampler's proposals."""

    def __init__(self, space: SearchSpace, ledger: Ledger) -> None:
        self._space = space
        self._ledger = ledger
        self._open: dict[str, Trial] = {}
        self._worst: list[float] | None = None
        self._study = _new_study(space, told=len(ledger.ended))
        for row in sorted(ledger.ended.values(), key=lambda row: row["number"]):
            self._replay(row)
        self._waiting = deque(ledger.plans_to_resume())
        self._base_is_due = not ledger.ended and not self._waiting

    @property
    def study(self) -> optuna.Study:
        """The study as told so far."""
        return self._study

    def next_plan(self) -> Plan:
        """The next attempt to run."""
        if self._waiting:
            plan = self._waiting.popleft()
            self._open[plan.trial] = self._ask_fixed(plan.suggestion)
            return plan
        if self._base_is_due:
            self._base_is_due = False
            plan = self._ledger.plan(self._space.base_suggestion())
            self._open[plan.trial] = self._ask_fixed(plan.suggestion)
            return plan
        trial = self._study.ask()
        plan = self._ledger.plan(self._space.suggest(trial))
        self._open[plan.trial] = trial
        return plan

    def tell(self, row: Row) -> None:
        """How a planned trial ended."""
        trial = self._open.pop(row["trial"])
        status = Status(row["status"])
        values = self._ledger.values(row)
        if status is Status.PRUNED:
            self._report_curve(trial, row["trial"])
            self._study.tell(trial, state=TrialState.PRUNED)
        elif status is Status.FINISHED and values is not None:
            self._remember_worst(values)
            self._study.tell(trial, values)
        elif status in _UNWELCOME:
            self._study.tell(trial, self._worst_values())
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _replay(self, row: Row) -> None:
        suggestion = {key: row[key] for key in self._space.vary if row.get(key) is not None}
        self._open[row["trial"]] = self._ask_fixed(suggestion)
        self.tell(row)

    def _ask_fixed(self, suggestion: Mapping[str, Any]) -> Trial:
        self._study.enqueue_trial(dict(suggestion))
        trial = self._study.ask()
        self._space.suggest(trial)
        return trial

    def _report_curve(self, trial: Trial, name: str) -> None:
        if len(self._space.objectives) > 1:
            return
        best = math.inf
        for point in self._ledger.store.curve(name):
            best = min(best, point[self._ledger.objective])
            trial.report(best, step=point["images_seen"])

    def _remember_worst(self, values: list[float]) -> None:
        before = self._worst or values
        self._worst = [_worse(name, *pair) for name, *pair in zip(self._space.objectives, before, values, strict=True)]

    def _worst_values(self) -> list[float]:
        """The worst seen of each objective; for bits/dim at least the 8 of a uniform guess at 256 levels."""
        floor = [_UNIFORM.get(name, 0.0) for name in self._space.objectives]
        seen = self._worst or floor
        return [_worse(name, *pair) for name, *pair in zip(self._space.objectives, seen, floor, strict=True)]


_UNIFORM = {"valid_bits_per_dim": 8.0}


def _worse(name: str, first: float, second: float) -> float:
    return max(first, second) if METRICS[name] == "minimize" else min(first, second)


def _new_study(space: SearchSpace, told: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        directions=[optuna.study.StudyDirection[METRICS[name].upper()] for name in space.objectives],
        sampler=_sampler(space, seed=space.seed + 7919 * told),
    )


def _sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """The named sampler. The seed moves on with the trials told, or a resumed search would repeat itself."""
    if space.sampler == "random":
        return RandomSampler(seed=seed)
    startup = max(4, min(10, space.budget.trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=startup)
