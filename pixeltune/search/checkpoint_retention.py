"""What stays of a trial's checkpoints when it ends: weights of the best, and nothing else."""

from __future__ import annotations

import contextlib

from pixeltune import files
from pixeltune.results.ranking import RANKED, is_unconfirmed
from pixeltune.results.ranking import front as find_front
from pixeltune.search.state import SearchState
from pixeltune.search.trial import state_file
from pixeltune.space.metrics import not_met


class CheckpointRetention:
    """Keeps the weights of the best `keep` trials; the state stays only with trials that may go on.

    The best keep to the constraints, and of several objectives stand on the front so far.

    A disk that refuses is no reason to stop a search: what could not be removed is tried again at the end.
    """

    def __init__(self, state: SearchState) -> None:
        self._state = state
        self._gone: set[str] = set()
        self._stateless: set[str] = set()

    def tidy(self) -> None:
        """Remove what the trials ended so far have left over."""
        best = self._best()
        for trial in self._state.ended:
            folder = self._state.store.checkpoint(trial)
            if trial not in best:
                self._remove(folder, trial, self._gone)
            else:
                self._remove(state_file(folder), trial, self._stateless)

    def tidy_all(self) -> None:
        """The same, looking again at every trial: a worker may have written once more while it was being stopped.

        Processes that were killed while they wrote have left half-written files, some as large as a checkpoint.
        """
        self._gone.clear()
        self._stateless.clear()
        self.tidy()
        store = self._state.store
        kept = [store.checkpoint(trial) for trial in self._best()]
        for folder in (store.folder, store.trials_folder, store.curves_folder, *kept):
            with contextlib.suppress(OSError):
                files.remove_unfinished(folder)

    def _best(self) -> set[str]:
        state, space = self._state, self._state.space
        rows = [row for row in state.ended.values() if row["status"] in RANKED]
        several = len(space.objectives) > 1
        front = {row["trial"] for row in find_front(rows, space.objectives, space.constraints)} if several else set()
        ranks = [
            (
                bool(not_met(space.constraints, row)),
                is_unconfirmed(row),
                several and row["trial"] not in front,
                number,
                row["trial"],
            )
            for row in rows
            if (number := state.number(row)) is not None
        ]
        return {trial for *_, trial in sorted(ranks)[: space.keep]}

    @staticmethod
    def _remove(location: str, trial: str, done: set[str]) -> None:
        if trial not in done:
            with contextlib.suppress(OSError):
                files.remove(location)
                done.add(trial)
