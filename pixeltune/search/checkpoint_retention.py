"""Removal of ended trials' checkpoints; only the weights of the best trials are kept."""

from __future__ import annotations

import contextlib

from pixeltune import files
from pixeltune.results.ranking import (
    RANKED,
    best_first,
    can_be_best,
    contenders,
    not_beaten,
    pareto_front,
    value_of,
)
from pixeltune.results.repeats import is_settled, merge_repeats
from pixeltune.search.state import SearchState
from pixeltune.search.trial import state_file


class CheckpointRetention:
    """The rule for checkpoints: the best `keep` trials keep their weights, the best `keep_states` of them their state.

    In a search with repeats a configuration keeps those of its first trial, and so do contenders, which may yet become
    the best; repeats keep none.

    Resumable trials keep both, and so do those that `pixeltune continue` has trained further.

    The best trials meet the constraints and, with several objectives, are on the Pareto front so far.

    An error of the disk does not stop a search: removals that failed are tried again at the end.
    """

    def __init__(self, state: SearchState) -> None:
        self._state = state
        self._gone: set[str] = set()
        self._stateless: set[str] = set()

    def tidy(self) -> None:
        """Remove what the ended trials no longer need."""
        best, waiting = self._best(), self._contenders()
        with_state = {*best[: self._state.space.keep_states], *(waiting if self._state.space.keep_states else ())}
        best += waiting
        for trial in self._state.ended.keys() - self._state.continued:
            folder = self._state.store.checkpoint(trial)
            if trial not in best:
                self._remove(folder, trial, self._gone)
            elif trial not in with_state:
                self._remove(state_file(folder), trial, self._stateless)

    def tidy_all(self) -> None:
        """Tidy every trial again: a worker may have written once more while it was being stopped.

        Processes that were killed while writing leave half-written files, some as large as a checkpoint.
        """
        self._gone.clear()
        self._stateless.clear()
        self.tidy()
        store = self._state.store
        kept = [store.checkpoint(trial) for trial in (*self._best(), *self._contenders())]
        for folder in (store.folder, store.trials_folder, store.curves_folder, *kept):
            with contextlib.suppress(OSError):
                files.remove_unfinished(folder)

    def _best(self) -> list[str]:
        state, space = self._state, self._state.space
        ranked = [row for row in merge_repeats(state.ended.values()) if row["status"] in RANKED]
        front = None
        if len(space.objectives) > 1:
            front = {row["trial"] for row in pareto_front(ranked, space.objectives, space.constraints)}
        known = [row for row in ranked if value_of(row, state.unit) is not None]
        order = best_first(known, state.unit, space.constraints, on_front=front)
        return [row["trial"] for row in order[: space.keep]]

    def _contenders(self) -> list[str]:
        """Return the configurations that may yet become the best; none where one seed is enough."""
        state, space = self._state, self._state.space
        if space.repeats == 1 or not space.keep:
            return []
        if len(space.objectives) == 1:
            return [row["trial"] for row in contenders(state.ended.values(), space.objectives[0], space.constraints)]
        able = [
            row for row in merge_repeats(state.ended.values()) if can_be_best(row, space.objectives, space.constraints)
        ]
        settled = [row for row in able if is_settled(row)]
        open_ones = [row for row in able if not is_settled(row)]
        return [row["trial"] for row in open_ones if row in not_beaten([*settled, row], space.objectives)]

    @staticmethod
    def _remove(location: str, trial: str, done: set[str]) -> None:
        if trial not in done:
            with contextlib.suppress(OSError):
                files.remove(location)
                done.add(trial)
