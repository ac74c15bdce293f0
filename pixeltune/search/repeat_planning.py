"""Repeats of promising configurations: which one is trained with another seed next. Ray-free.

The next repeat follows from the ended rows and the pending plans alone, so a resumed search makes the same repeats as
an uninterrupted one. The leader is the configuration with the best mean over the seeds that it has; with several
objectives, each that no other beats. A leader that lacks seeds gets the next one before any new configuration is tried.
One whose mean gets worse than another's is no longer repeated: it does not count as the best. The same holds for
one whose seeds have all ended without a second number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import best_first, can_be_best, not_beaten
from pixeltune.results.repeats import RUNS, first_trial, is_settled, merge_repeats
from pixeltune.search.attempt import TrialPlan
from pixeltune.space import SearchSpace

REPEAT = "repeat"
"""What `proposed_by` of a repeat is."""


@dataclass(frozen=True)
class Repeat:
    """A configuration to train with another seed. repeat_of: its first trial. suggestion: its varied keys."""

    repeat_of: str
    seed: int
    suggestion: Mapping[str, Any]


def next_repeat(
    space: SearchSpace, ended: Iterable[Row], pending: Sequence[TrialPlan], outside: Collection[str] = ()
) -> Repeat | None:
    """Return the next repeat; None while every leader has all of its seeds, or trains with them.

    Args:
        space: What is searched.
        ended: The latest rows of the ended trials.
        pending: The trials that run, were handed out, or wait to be resumed.
        outside: The ended trials of earlier versions of the space, which are not trained again.
    """
    if space.repeats == 1:
        return None
    ended = list(ended)
    for leader in _open_leaders(space, ended, outside):
        first = first_trial(leader)
        runs = [row for row in ended if first_trial(row) == first]
        waiting = [plan for plan in pending if first in (plan.trial, plan.repeat_of)]
        if len(runs) + len(waiting) < space.repeats:
            seeds = {*(row["seed"] for row in runs), *(plan.config.seed for plan in waiting)}
            seed = next(seed for seed in count(space.base.seed) if seed not in seeds)
            return Repeat(first, seed, space.suggestion_of(leader))
    return None


def has_open_leader(space: SearchSpace, ended: Iterable[Row], outside: Collection[str] = ()) -> bool:
    """Return whether a configuration that would be the best lacks seeds, which run or are still to be trained."""
    return space.repeats > 1 and bool(_open_leaders(space, ended, outside))


def repeats_before(number: int, ended: Iterable[Row], pending: Iterable[TrialPlan]) -> int:
    """Return how many trials below a number are repeats, which the sampler does not count."""
    numbers = {row["number"] for row in ended if row["repeat_of"] is not None}
    numbers |= {plan.number for plan in pending if plan.repeat_of is not None}
    return sum(each < number for each in numbers)


def _open_leaders(space: SearchSpace, ended: Iterable[Row], outside: Collection[str]) -> list[Row]:
    """Return the leaders without all of their seeds, in the order of the front."""

    def can_get_more(row: Row) -> bool:
        return len(row[RUNS]) < space.repeats and not any(trial in outside for trial in row[RUNS])

    able = [row for row in merge_repeats(ended) if can_be_best(row, space.objectives, space.constraints)]
    able = [row for row in able if is_settled(row) or can_get_more(row)]
    if len(space.objectives) > 1:
        leaders = not_beaten(able, space.objectives)
    else:
        leaders = best_first(able, space.objectives[0], ties=("number",), by_value_alone=True)[:1]
    return [row for row in leaders if not is_settled(row)]
