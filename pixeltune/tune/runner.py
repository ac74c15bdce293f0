"""Runs of Ray Tune, one after another, until no trial is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pixeltune import files
from pixeltune.errors import SearchError
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.run import Stop, interrupts
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

    def run(
        self, left: Callable[[], int], planner: Callable[[Sequence[TrialPlan]], TrialSource], concurrent: int
    ) -> None:
        """Run trials until none is `left`. `planner`: given the plans that a run of Tune dropped before they began.

        One run is the rule. It ends early if the planner has nothing left to try. SearchError where several in a row
        end no trial.
        """
        lost: Sequence[TrialPlan] = ()
        fruitless = 0
        while (trials := left()) > 0 and self.stop.reason is None:
            ended = len(self.state.ended)
            current = planner(lost)
            lost, stuck = self.run_once(trials, current, concurrent)
            if current.is_exhausted and not lost and not self.state.plans_to_resume():
                return
            fruitless = 0 if len(self.state.ended) > ended else fruitless + 1
            if fruitless == _MOST_FRUITLESS_RUNS:
                raise SearchError(
                    f"Ray Tune must run trials, but {fruitless} times in a row none came to its end "
                    f"({stuck or 'they were dropped'}); see to the cluster, and give the same command"
                )
            if stuck:
                self.callback.say(f"Ray Tune is started anew: {stuck}.")

    def run_once(self, trials: int, planner: TrialSource, concurrent: int) -> tuple[Sequence[TrialPlan], str]:
        """Run so many trials, as the planner plans them and with the search state's resources.

        Returns the plans that Tune dropped before they began, and why it has to be started anew, or "".
        """
        from ray import tune

        from pixeltune.tune import adapters
        from pixeltune.tune.hang_recovery import HangRecoveryCallback
        from pixeltune.tune.ray_session import could_hold
        from pixeltune.tune.run_state import MOST_FAULTS, TuneRunState
        from pixeltune.tune.trainables import trainable

        state = self.state
        run_state = TuneRunState(
            planner,
            state,
            self._on_change,
            most=concurrent,
            say=self.callback.say,
            could_hold=lambda: could_hold(state.resources),
        )
        together = state.resources.workers > 1
        with _scratch(state.store, shared=together) as scratch, interrupts(self.stop, self.callback):
            tuner = tune.Tuner(
                trainable(state.resources),
                tune_config=tune.TuneConfig(
                    search_alg=adapters.TuneSearcher(run_state, scratch),
                    scheduler=adapters.TuneScheduler(run_state),
                    num_samples=trials,
                    max_concurrent_trials=concurrent,
                    reuse_actors=not together,
                    trial_dirname_creator=adapters.directory_of,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    stop=adapters.LimitStopper(lambda: run_state.is_over or self.stop.due()),
                    failure_config=tune.FailureConfig(max_failures=MOST_FAULTS),
                    callbacks=[
                        HangRecoveryCallback(run_state, self.watchdog),
                        adapters.TuneCallback(run_state),
                        *state.space.callbacks,
                    ],
                ),
            )
            try:
                tuner.fit()
            except KeyboardInterrupt:  # The second Ctrl-C.
                self.stop.interrupt()
            except Exception as error:
                with run_state.guarded():
                    raise SearchError(f"Ray Tune must run to its end, but stopped with {error!r}") from error
            for trial in list(state.live):
                with run_state.guarded():
                    state.finish(trial)
        if run_state.failure is not None:
            raise run_state.failure
        return run_state.lost, run_state.stuck

    def _on_change(self) -> None:
        self.retention.tidy()
        self.callback.change()


@contextmanager
def _scratch(store: SearchStore, *, shared: bool) -> Iterator[str]:
    """A folder for what Tune and Train keep of themselves, of no use afterwards.

    Workers on several nodes must all see Train's, so it lies in the search's own folder; Tune's alone stays local.
    """
    if shared:
        location = files.join(store.folder, ".scratch")
        location = location if files.is_uri(location) else str(files.local_path(location).resolve())
        files.remove(location)  # Train would go on from what lies there, whoever left it
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
