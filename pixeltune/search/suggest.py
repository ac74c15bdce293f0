"""What to try next: an Optuna study made of the ledger's trials anew before each proposal. Ray-free.

So a proposal follows from the trials that ended, in the order in which they did, from those under way and from the
number of the new one: a resumed search proposes what it would have proposed without the interruption. Optuna's own
memory of a study is in no row. Making a study of 500 trials takes 0.1 s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.samplers import RandomSampler

from pixeltune.config import Scalar
from pixeltune.results.judge import is_unconfirmed
from pixeltune.results.pareto import front
from pixeltune.results.schema import Status
from pixeltune.search.attempts import Plan, Row
from pixeltune.search.ledger import Ledger
from pixeltune.search.samplers import build_sampler
from pixeltune.search.verdicts import PENDING, verdicts
from pixeltune.space import METRICS, SearchSpace
from pixeltune.space.metrics import keeps_to

_PROPOSALS, _DRAWS = 3, 50
"""How often a sampler may repeat a trial before a new one is drawn at random, and of how many draws one must be new: in
a space of few configurations all may be tried."""


_BEST_OF_OTHERS = 3
"""Trials of other searches that are tried here too."""


class Suggester:
    """Plans the next trial: first those to resume, then the base configuration, then the sampler's proposals.

    waiting: in place of those to resume. Of a warm start the best follow the base, and all are told to the sampler
    before any trial of its own.
    """

    def __init__(self, space: SearchSpace, ledger: Ledger, *, waiting: Sequence[Plan] | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._ledger = ledger
        self._waiting = deque(ledger.plans_to_resume() if waiting is None else waiting)
        self._handed_out: list[Plan] = []
        self._suggestions: dict[tuple[str, str], dict[str, Scalar]] = {}
        self._others = ledger.store.warm_start()
        self._first = self._first_suggestions()

    def next_plan(self) -> Plan:
        """The next attempt to run."""
        if self._waiting:
            plan = self._waiting.popleft()
        elif self._ledger.next_number < len(self._first):
            plan = self._ledger.plan(self._first[self._ledger.next_number])
        else:
            plan = self._ledger.plan(self._propose())
        self._handed_out.append(plan)
        return plan

    def study(self) -> optuna.Study:
        """What the sampler of the next trial sees: those of others, own ones as they ended, then pending ones."""
        study = optuna.create_study(
            directions=[optuna.study.StudyDirection[METRICS[name].upper()] for name in self._space.objectives],
            sampler=build_sampler(self._space, _seed(self._space.seed, self._ledger.next_number)),
        )
        rows = [*self._others, *self._ended()]
        for row, verdict in zip(rows, verdicts(self._space, rows, self._ledger.curves), strict=True):
            study.add_trial(verdict.frozen(self._space, self._suggestion(row)))
        for plan in self._pending():
            study.add_trial(PENDING.frozen(self._space, plan.suggestion))
        return study

    def _ended(self) -> list[Row]:
        return sorted(
            self._ledger.ended.values(), key=lambda row: (row["finished_at"] or row["started_at"], row["number"])
        )

    def _suggestion(self, row: Row) -> dict[str, Scalar]:
        """Kept, for which keys a row has is found by building configurations."""
        name = row["search"], row["trial"]
        if name not in self._suggestions:
            self._suggestions[name] = self._space.suggestion_of(row)
        return self._suggestions[name]

    def _first_suggestions(self) -> list[dict[str, Scalar]]:
        """The base, and the best of other searches; of several objectives some all along their front."""
        space = self._space
        best = front(self._others, space.objectives, space.constraints)
        if len(space.objectives) == 1:
            able = [row for row in self._others if keeps_to(space.constraints, row, has_ended=True)]
            best = _best_first(able, space.objectives[0])
        distinct = [space.base_suggestion()]
        for row in best:
            if self._suggestion(row) not in distinct:
                distinct.append(self._suggestion(row))
        if len(space.objectives) == 1:
            return distinct[: 1 + _BEST_OF_OTHERS]
        places = np.linspace(1, len(distinct) - 1, min(_BEST_OF_OTHERS, len(distinct) - 1))
        return [distinct[place] for place in (0, *places.round().astype(int))]

    def _pending(self) -> list[Plan]:
        """Trials under way, handed out or waiting, to be resumed or to be tried alone."""
        plans = {plan.trial: plan for plan in [*self._ledger.pending(), *self._waiting, *self._handed_out]}
        return [plans[trial] for trial in sorted(plans) if trial not in self._ledger.ended]

    def _propose(self) -> dict[str, Scalar]:
        """A configuration that is not tried yet, where there is one: trained again with its seed, it ends as before.

        What is turned down stays in the study as under way, which samplers avoid.
        """
        study = self.study()
        tried = [self._suggestion(row) for row in self._ended()] + [plan.suggestion for plan in self._pending()]
        for number in range(_PROPOSALS + _DRAWS):
            if number == _PROPOSALS:
                study.sampler = RandomSampler(seed=_seed(self._space.seed, self._ledger.next_number))
            suggestion = self._space.suggest(study.ask())
            if suggestion not in tried:
                break
        return suggestion


def _seed(seed: int, number: int) -> int:
    """Of the sampler that proposes one trial: another for each, or workers that ask at once would get one proposal."""
    return int(np.random.SeedSequence([abs(seed), number]).generate_state(1)[0])


def _best_first(rows: list[Row], objective: str) -> list[Row]:
    sign = 1 if METRICS[objective] == "minimize" else -1
    finished = [row for row in rows if row["status"] == Status.FINISHED and not is_unconfirmed(row)]
    return sorted(finished, key=lambda row: (sign * row[objective], row["search"], row["trial"]))
