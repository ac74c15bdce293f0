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
from pixeltune.search.attempt import Plan
from pixeltune.search.callbacks import Listener
from pixeltune.search.checkpoint_retention import WeightKeeper
from pixeltune.search.run import Stop, interrupts
from pixeltune.search.searcher import Planner
from pixeltune.search.state import Ledger
from pixeltune.tune.watchdog import Heartbeat

_MOST_FRUITLESS_RUNS = 3


@dataclass(frozen=True)
class TuneRuns:
    """Runs of Ray Tune, one after another: as many as it takes until no trial is left."""

    stop: Stop
    ledger: Ledger
    listener: Listener
    keeper: WeightKeeper
    heart: Heartbeat

    def until_done(
        self, left: Callable[[], int], planner: Callable[[Sequence[Plan]], Planner], concurrent: int
    ) -> None:
        """Run trials until none is `left`. `planner`: given the plans that a run of Tune dropped before they began.

        One run is the rule. It ends early if the planner has nothing left to try. SearchError where several in a row
        end no trial.
        """
        lost: Sequence[Plan] = ()
        fruitless = 0
        while (trials := left()) > 0 and self.stop.reason is None:
            ended = len(self.ledger.ended)
            current = planner(lost)
            lost, stuck = self.once(trials, current, concurrent)
            if current.is_exhausted and not lost and not self.ledger.plans_to_resume():
                return
            fruitless = 0 if len(self.ledger.ended) > ended else fruitless + 1
            if fruitless == _MOST_FRUITLESS_RUNS:
                raise SearchError(
                    f"Ray Tune must run trials, but {fruitless} times in a row none came to its end "
                    f"({stuck or 'they were dropped'}); see to the cluster, and give the same command"
                )
            if stuck:
                self.listener.say(f"Ray Tune is started anew: {stuck}.")

    def once(self, trials: int, planner: Planner, concurrent: int) -> tuple[Sequence[Plan], str]:
        """Run so many trials, as the planner plans them and with the ledger's resources.

        Returns the plans that Tune dropped before they began, and why it has to be started anew, or "".
        """
        from ray import tune

        from pixeltune.tune import adapters
        from pixeltune.tune.hang_recovery import RescueCallback
        from pixeltune.tune.ray_session import could_hold
        from pixeltune.tune.run_state import MOST_FAULTS, Seats
        from pixeltune.tune.trainables import trainable

        ledger = self.ledger
        seats = Seats(
            planner,
            ledger,
            self._on_change,
            most=concurrent,
            say=self.listener.say,
            could_hold=lambda: could_hold(ledger.resources),
        )
        together = ledger.resources.workers > 1
        with _scratch(ledger.store, shared=together) as scratch, interrupts(self.stop, self.listener):
            tuner = tune.Tuner(
                trainable(ledger.resources),
                tune_config=tune.TuneConfig(
                    search_alg=adapters.SuggestSearcher(seats, scratch),
                    scheduler=adapters.LedgerScheduler(seats),
                    num_samples=trials,
                    max_concurrent_trials=concurrent,
                    reuse_actors=not together,
                    trial_dirname_creator=adapters.directory_of,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    stop=adapters.LimitStopper(lambda: seats.is_over or self.stop.due()),
                    failure_config=tune.FailureConfig(max_failures=MOST_FAULTS),
                    callbacks=[
                        RescueCallback(seats, self.heart),
                        adapters.LedgerCallback(seats),
                        *ledger.space.callbacks,
                    ],
                ),
            )
            try:
                tuner.fit()
            except KeyboardInterrupt:  # The second Ctrl-C.
                self.stop.interrupt()
            except Exception as error:
                with seats.guarded():
                    raise SearchError(f"Ray Tune must run to its end, but stopped with {error!r}") from error
            for trial in list(ledger.live):
                with seats.guarded():
                    ledger.finish(trial)
        if seats.failure is not None:
            raise seats.failure
        return seats.lost, seats.stuck

    def _on_change(self) -> None:
        self.keeper.tidy()
        self.listener.change()


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
