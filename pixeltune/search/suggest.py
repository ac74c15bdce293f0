"""What to try next: an Optuna study that is told how every trial really ended. Ray-free.

finished → COMPLETE with its objectives. pruned → PRUNED with its best value so far at each report. diverged, oom →
PRUNED and infeasible: told as FAIL they are invisible to TPE, which goes on proposing the same region, and an
invented bad value would count as a good one while few trials are complete. failed, rejected, interrupted → FAIL, for
they say nothing about the configuration's worth. oom on a shared GPU is not told before the trial was tried alone.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from pixeltune.results.schema import Status
from pixeltune.search.ledger import Ledger, Plan, Row, owes_a_try_alone
from pixeltune.space import METRICS, SearchSpace

_INFEASIBLE = {"got through": 1.0}
"""A constraint above 0 is a violated one."""


@dataclass(frozen=True)
class _Verdict:
    """What a study is told of a trial's end."""

    state: TrialState
    values: list[float] | None = None
    curve: dict[int, float] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)


class Suggester:
    """Plans the next trial: first those to resume, then the base configuration, then the sampler's proposals.

    waiting: in place of those to resume.
    """

    def __init__(self, space: SearchSpace, ledger: Ledger, *, waiting: Sequence[Plan] | None = None) -> None:
        self._space = space
        self._ledger = ledger
        self._open: dict[str, Trial] = {}
        self._study = _new_study(space, planned=ledger.planned)
        for row in sorted(ledger.ended.values(), key=lambda row: row["number"]):
            self._study.add_trial(self._frozen(row))
        self._waiting = deque(ledger.plans_to_resume() if waiting is None else waiting)
        self._base_is_due = ledger.planned == 0

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
            trial = self._ask_fixed(self._space.base_suggestion())
        else:
            trial = self._study.ask()
        plan = self._ledger.plan(self._space.suggest(trial))
        self._open[plan.trial] = trial
        return plan

    def tell(self, row: Row) -> None:
        """How a planned trial ended; one that will be tried once more goes on as running."""
        if owes_a_try_alone(row):
            return
        trial = self._open.pop(row["trial"])
        verdict = self._verdict(row)
        for images, value in verdict.curve.items():
            trial.report(value, step=images)
        for name, violation in verdict.constraints.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, verdict.values, state=verdict.state)

    def give_up(self, plan: Plan) -> None:
        """It will not be run now, and nothing is known of its worth."""
        self._study.tell(self._open.pop(plan.trial), state=TrialState.FAIL)

    def _verdict(self, row: Row) -> _Verdict:
        status, values = Status(row["status"]), self._ledger.values(row)
        if status is Status.FINISHED and values is not None:
            return _Verdict(TrialState.COMPLETE, values=values)
        if status is Status.PRUNED:
            curve = sorted(self._ledger.curves[row["trial"]].items())
            best = itertools.accumulate((value for _, value in curve), min)
            return _Verdict(TrialState.PRUNED, curve=dict(zip(dict(curve), best, strict=True)))
        if status in (Status.DIVERGED, Status.OOM):
            return _Verdict(TrialState.PRUNED, constraints=_INFEASIBLE)
        return _Verdict(TrialState.FAIL)

    def _frozen(self, row: Row) -> optuna.trial.FrozenTrial:
        """A trial of an earlier launch. Asking the study for it again would make the sampler propose each time."""
        verdict, suggestion = self._verdict(row), self._space.suggestion_of(row)
        return optuna.trial.create_trial(
            state=verdict.state,
            params=suggestion,
            distributions={key: self._space.vary[key] for key in suggestion},
            values=verdict.values or list(verdict.curve.values())[-1:] or None,  # as `tell` does with a pruned one
            intermediate_values=verdict.curve,
            constraints=verdict.constraints,
        )

    def _ask_fixed(self, suggestion: Mapping[str, Any]) -> Trial:
        self._study.enqueue_trial(dict(suggestion))
        trial = self._study.ask()
        self._space.suggest(trial)
        return trial


def _new_study(space: SearchSpace, planned: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        directions=[optuna.study.StudyDirection[METRICS[name].upper()] for name in space.objectives],
        sampler=_sampler(space, seed=(space.seed + 7919 * planned) % 2**32),
    )


def _sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """The named sampler. The seed moves on with the trials planned, or a resumed search would repeat itself."""
    if space.sampler == "random":
        return RandomSampler(seed=seed)
    startup = max(4, min(10, space.budget.trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=startup)
