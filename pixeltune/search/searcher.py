"""The choice of the next trial, from an Optuna study rebuilt from the search state before each proposal. Ray-free.

A proposal therefore follows from the ended trials in the order in which they ended, the running ones and the number of
the new one: a resumed search makes the same proposals as an uninterrupted one. Optuna's own state of a study is in no
row. Building a study of 500 trials takes 0.1 s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import optuna
from optuna.samplers import RandomSampler

from pixeltune.config import Scalar
from pixeltune.results.budget_aims import in_order_of_end
from pixeltune.results.ranking import best_first, can_be_best, pareto_front
from pixeltune.results.repeats import merge_repeats
from pixeltune.search.attempt import Row, TrialPlan
from pixeltune.search.optuna_trials import PENDING, trial_outcomes
from pixeltune.search.repeat_planning import Repeat, next_repeat, repeats_before
from pixeltune.search.samplers import build_sampler, proposal_seed
from pixeltune.search.state import SearchState
from pixeltune.space import METRICS, FinalSpace, SearchSpace
from pixeltune.space.sampler_names import GRID


class TrialSource(Protocol):
    """A source of trials, planned one by one; the state has their ends."""

    @property
    def is_exhausted(self) -> bool:
        """Return whether it had no trial to plan, and still has none."""

    def next_plan(self) -> TrialPlan | None:
        """Return the next attempt to run; None if there is nothing left to try."""


class FixedTrials:
    """The trials of a final: first those to resume, then the rest of the list.

    waiting: trials to use instead of those to resume.
    """

    def __init__(self, space: FinalSpace, state: SearchState, *, waiting: Sequence[TrialPlan] | None = None) -> None:
        self.is_exhausted = False
        self._state = state
        self._waiting = deque(state.plans_to_resume() if waiting is None else waiting)
        self._suggestions = space.suggestions()

    def next_plan(self) -> TrialPlan:
        """Return the next attempt to run; None if the list is done."""
        if self._waiting:
            return self._waiting.popleft()
        return self._state.plan(self._suggestions[self._state.next_number])


@dataclass(frozen=True)
class _NextTrial:
    """A configuration to try next, and what chose it: `proposed_by` of its row."""

    suggestion: dict[str, Scalar]
    proposed_by: str


_PROPOSALS, _DRAWS = 3, 50
"""How often the sampler may repeat a trial before configurations are drawn at random, and how often random draws may
repeat one before all that are left are listed."""

_BEST_OF_OTHERS = 3
"""Trials of other searches that are tried here too."""


class OptunaSearcher:
    """The trials of a search: those to resume, the base, the first configurations, then the sampler's proposals.

    waiting: trials to use instead of those to resume. The best rows of a warm start follow the first configurations,
    and all its rows are reported to the sampler before any trial of this search. Repeats of a configuration that would
    be the best come before any new one; to the sampler they are one trial, with the mean.
    """

    def __init__(self, space: SearchSpace, state: SearchState, *, waiting: Sequence[TrialPlan] | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._has_run_out = False
        self._space = space
        self._state = state
        self._waiting = deque(state.plans_to_resume() if waiting is None else waiting)
        self._handed_out: list[TrialPlan] = []
        self._own_suggestions: dict[str, dict[str, Scalar]] = {}
        self._others = [row for row in state.store.warm_start() if state.history.has(row, version=1)]
        self._suggestions_of_others = [space.suggestion_of(row) for row in self._others]
        self._first = self._first_choices()

    def next_plan(self) -> TrialPlan | None:
        """Return the next attempt to run; None if every configuration of the space has been tried."""
        if self._waiting:
            plan = self._waiting.popleft()
        elif (repeat := self._next_repeat()) is not None:
            plan = self._state.plan_repeat(repeat)
        else:
            choice = self._next_choice()
            if choice is None:
                self._has_run_out = True
                return None
            plan = self._state.plan(choice.suggestion, choice.proposed_by)
        self._handed_out.append(plan)
        return plan

    @property
    def is_exhausted(self) -> bool:
        """Return whether a plan was requested when there was none, and no repeat has become due since."""
        return self._has_run_out and self._next_repeat() is None

    def _next_repeat(self) -> Repeat | None:
        return next_repeat(self._space, self._state.ended.values(), self._pending(), self._state.outside)

    @property
    def _proposal_number(self) -> int:
        """Return the number that the next trial would have without repeats: it decides what is proposed."""
        number = self._state.next_number
        if self._space.repeats == 1:
            return number
        return number - repeats_before(number, self._state.ended.values(), self._pending())

    def study(self) -> optuna.Study:
        """Return the sampler's study: trials of other searches, own trials as they ended, then pending ones."""
        study = optuna.create_study(
            directions=[optuna.study.StudyDirection[METRICS[name].upper()] for name in self._space.objectives],
            sampler=build_sampler(self._space, self._proposal_number),
        )
        own = self._ended()
        curves = [*({} for _ in self._others), *(self._state.curves.get(row["trial"], {}) for row in own)]
        suggestions = [*self._suggestions_of_others, *map(self._suggestion, own)]
        outcomes = trial_outcomes(self._space, [*self._others, *own], curves)
        for outcome, suggestion in zip(outcomes, suggestions, strict=True):
            study.add_trial(outcome.to_frozen_trial(self._space, suggestion))
        for plan in self._pending():
            if plan.repeat_of is not None:  # no new point: its configuration is in the study
                continue
            study.add_trial(PENDING.to_frozen_trial(self._space, plan.suggestion))
        return study

    def _ended(self) -> list[Row]:
        """Return the ended trials that the space has, in the order in which they ended; one row a configuration."""
        state = self._state
        return in_order_of_end(merge_repeats(row for row in state.ended.values() if row["trial"] not in state.outside))

    def _suggestion(self, row: Row) -> dict[str, Scalar]:
        """Return an own trial's suggestion; cached, because finding its keys requires building configurations."""
        if row["trial"] not in self._own_suggestions:
            self._own_suggestions[row["trial"]] = self._space.suggestion_of(row)
        return self._own_suggestions[row["trial"]]

    def _first_choices(self) -> list[_NextTrial]:
        """Return the base, the first configurations and the best of other searches, which may repeat them."""
        choices = [_NextTrial(self._space.base_suggestion(), "base")]
        choices += [_NextTrial(suggestion, "first") for suggestion in self._space.first_suggestions()]
        return choices + [_NextTrial(suggestion, "warm_start") for suggestion in self._best_of_others()]

    def _best_of_others(self) -> list[dict[str, Scalar]]:
        """Return the best of other searches; with several objectives, some along the whole front."""
        space = self._space
        best = pareto_front(self._others, space.objectives, space.constraints)
        if len(space.objectives) == 1:
            able = [row for row in self._others if can_be_best(row, space.objectives, space.constraints)]
            best = best_first(able, space.objectives[0], ties=("search", "trial"))
        distinct = [space.base_suggestion()]
        for row in best:
            suggestion = space.suggestion_of(row)
            if suggestion not in distinct:
                distinct.append(suggestion)
        if len(space.objectives) == 1:
            return distinct[1 : 1 + _BEST_OF_OTHERS]
        indices = np.linspace(1, len(distinct) - 1, min(_BEST_OF_OTHERS, len(distinct) - 1))
        return [distinct[index] for index in indices.round().astype(int)]

    def _pending(self) -> list[TrialPlan]:
        """Return the trials that run, are handed out, or wait to be resumed or tried alone."""
        plans = {plan.trial: plan for plan in [*self._state.pending(), *self._waiting, *self._handed_out]}
        return [plans[trial] for trial in sorted(plans) if trial not in self._state.ended]

    def _next_choice(self) -> _NextTrial | None:
        """Return an untried configuration; repeating one with the same seed would give the same result."""
        tried = [self._suggestion(row) for row in self._ended()] + [plan.suggestion for plan in self._pending()]
        for choice in self._first:
            if choice.suggestion not in tried:
                return choice
        if self._space.sampler == GRID:
            return self._next_of_grid(tried)
        return self._propose(tried) or self._any_left(tried)

    def _next_of_grid(self, tried: Sequence[dict[str, Scalar]]) -> _NextTrial | None:
        """Return the first combination of the grid that is not tried."""
        known = set(map(_identity, tried))
        left = (each for each in self._space.grid_configurations() if _identity(each) not in known)
        return next((_NextTrial(each, GRID) for each in left), None)

    def _propose(self, tried: Sequence[dict[str, Scalar]]) -> _NextTrial | None:
        """Ask the sampler, then draw at random; proposals that repeat a trial stay RUNNING in the study, so that
        samplers avoid them. None if all repeat one."""
        study = self.study()
        for number in range(_PROPOSALS + _DRAWS):
            if number == _PROPOSALS:
                study.sampler = RandomSampler(seed=proposal_seed(self._space, self._proposal_number))
            suggestion = self._space.suggest(study.ask())
            if suggestion not in tried:
                return _NextTrial(suggestion, self._space.sampler if number < _PROPOSALS else "random")
        return None

    def _any_left(self, tried: Sequence[dict[str, Scalar]]) -> _NextTrial | None:
        """Return a random untried configuration of a finite space; None if there is none."""
        known = set(map(_identity, tried))
        left = [one for one in self._space.configurations() if _identity(one) not in known]
        if not left:
            return None
        rng = np.random.default_rng(proposal_seed(self._space, self._proposal_number))
        return _NextTrial(left[int(rng.integers(len(left)))], "random")


def _identity(suggestion: dict[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    return frozenset(suggestion.items())
