"""Runs of Ray Tune, one after another, until no trial is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pixeltune import files
from pixeltune.errors import SearchError
from pixeltune.own_code import error_text
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.run import Round, Stop, interrupts
from pixeltune.search.searcher import TrialSource
from pixeltune.search.state import SearchState
from pixeltune.tune.watchdog import LauncherWatchdog

_MOST_FRUITLESS_RUNS = 3


@dataclass(frozen=True)
class TuneRunner:
    """Runs of Ray Tune, one after another: as many as it takes until no trial is left."""

    stop: Stop
    state: SearchState
    callback: SearchCallback
    retention: CheckpointRetention
    watchdog: LauncherWatchdog

    def run(self, round_: Round) -> None:
        """Run the trials of a round until none is left, or nothing is left to try. Usually one run of Tune is enough.

        Raises:
            SearchError: Several runs in a row ended no trial.
        """
        dropped: Sequence[TrialPlan] = ()
        fruitless = 0
        while round_.trials_left > 0 and self.stop.reason is None:
            ended = len(self.state.ended)
            source = round_.source(dropped)
            dropped, restart_reason = self.run_once(round_, source)
            if source.is_exhausted and not dropped and not self.state.plans_to_resume():
                return
            fruitless = 0 if len(self.state.ended) > ended else fruitless + 1
            if fruitless == _MOST_FRUITLESS_RUNS:
                raise SearchError(
                    f"Ray Tune must run trials, but {fruitless} times in a row none came to its end "
                    f"({restart_reason or 'they were dropped'}); see to the cluster, and give the same command"
                )
            if restart_reason:
                self.callback.say(f"Ray Tune is started again: {restart_reason}.")

    def run_once(self, round_: Round, source: TrialSource) -> tuple[Sequence[TrialPlan], str]:
        """Run the trials that are left of a round, as `source` plans them.

        Returns:
            The plans that Tune dropped before they began, and why Tune has to be started again, or "".
        """
        from ray import tune

        from pixeltune.tune import adapters
        from pixeltune.tune.hang_recovery import HangRecoveryCallback
        from pixeltune.tune.preemption import ask_to_end, withdraw
        from pixeltune.tune.ray_session import could_hold
        from pixeltune.tune.run_state import MOST_FAULTS, TuneRunState
        from pixeltune.tune.trainables import trainable

        state, resources = self.state, round_.resources
        # What the hooks below share: each of them only calls its methods.
        run_state = TuneRunState(
            source,
            state,
            self._on_change,
            resources=resources,
            on_progress=self.callback.change,
            concurrent=round_.concurrent,
            say=self.callback.say,
            could_hold=partial(could_hold, resources),
            ask_to_end=ask_to_end,
        )
        together = resources.workers > 1
        with _scratch(state.store, shared=together) as scratch, interrupts(self.stop, self.callback):
            tuner = tune.Tuner(
                trainable(resources),
                tune_config=tune.TuneConfig(
                    search_alg=adapters.TuneSearcher(run_state, scratch),
                    scheduler=adapters.TuneScheduler(run_state),
                    num_samples=round_.trials_left,
                    max_concurrent_trials=round_.concurrent,
                    reuse_actors=not together,
                    trial_dirname_creator=adapters.directory_of,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    stop=adapters.LimitStopper(lambda: run_state.is_over or (self.stop.due() and run_state.may_end())),
                    failure_config=tune.FailureConfig(max_failures=MOST_FAULTS),
                    callbacks=[
                        HangRecoveryCallback(run_state, self.watchdog),
                        adapters.TuneCallback(run_state),
                        *state.space.callbacks,
                        *([adapters.CallbackFiles(run_state, state.store.folder)] if state.space.callbacks else []),
                    ],
                ),
            )

            # Tune's loop: it asks the searcher for trials, and calls the hooks until the stopper ends it.
            try:
                tuner.fit()
            except KeyboardInterrupt:  # The second Ctrl-C.
                self.stop.interrupt()
            except Exception as error:
                with run_state.guarded():
                    raise SearchError(f"Ray Tune must run to its end, but stopped with {error_text(error)}") from error
            finally:
                withdraw()

            # What still runs is interrupted: a later run resumes it.
            run_state.finish_interrupted()

        # An exception in a hook ends the search.
        if run_state.failure is not None:
            raise run_state.failure
        return run_state.dropped, run_state.restart_reason

    def _on_change(self) -> None:
        self.retention.tidy()
        self.callback.change()


@contextmanager
def _scratch(store: SearchStore, *, shared: bool) -> Iterator[str]:
    """Yield a temporary folder for the files of Tune and Train.

    Workers on several nodes must all see Train's, so it is in the search's own folder; Tune's alone stays local.
    """
    if shared:
        location = files.join(store.folder, ".scratch")
        location = location if files.is_uri(location) else str(files.local_path(location).resolve())
        files.remove(location)  # Train would resume from any state that is already there
        try:
            yield location
        finally:
            files.remove(location)
    else:
        folder = tempfile.mkdtemp(prefix="pixeltune-")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
