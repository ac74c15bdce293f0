"""A search from its files to its end: what is left to do, on which cluster, until which limit.

Ray and Optuna's samplers are imported only when there is something to run: a finished search answers from Parquet at
once, and `pixeltune train`, which opens its results here, needs neither.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from pixeltune import files
from pixeltune.config import ImageForm, require_workers
from pixeltune.data import Resolved, order0_bits_per_dim, resolve
from pixeltune.errors import ConfigError, SearchError, StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.attempts import Plan
from pixeltune.search.connect import Node, connect, fit_to
from pixeltune.search.final import require_final_data
from pixeltune.search.keep import WeightKeeper
from pixeltune.search.ledger import Ledger
from pixeltune.search.plans import ListedPlans, Planner
from pixeltune.search.scheduler import judge_of
from pixeltune.search.warm_start import read_warm_start
from pixeltune.search.watch import Heartbeat
from pixeltune.space import FinalSpace, Resources, SearchSpace

_LONGEST_STALL = 900.0
"""Seconds after which a launch ends itself whose main thread has not come by; a slow storage has its time."""
_MOST_FRUITLESS_RUNS = 3


@dataclass(frozen=True)
class Outcome:
    """How a launch ended. interrupted: stopped by hand, before its budget. reason: why it ended."""

    ledger: Ledger
    interrupted: bool
    reason: str


class Watcher:
    """Told of what happens; the progress display is one."""

    def begin(self, ledger: Ledger, resources: Resources, concurrent: int, form: ImageForm) -> None:
        """The cluster is up and trials start."""

    def change(self) -> None:
        """A trial started, reported or ended."""

    def say(self, text: str) -> None:
        """Something that the user should read."""

    def end(self) -> None:
        """No trial runs any more."""


def open_search(
    space: SearchSpace,
    name: str,
    storage: str,
    *,
    overrides: dict[str, Any] | None = None,
    warm_start: Sequence[str] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[SearchStore, SearchManifest]:
    """Begin or go on with the search's results folder; the baseline is computed once and kept there.

    warm_start: results of other searches. What of them is told to the sampler is kept there too, when the search
    begins; from then on they are not read again. say: told about it.
    """
    store = SearchStore(storage, name)
    sources = tuple(sorted({location.rstrip("/").rpartition("/")[2] for location in warm_start}))
    if store.has_trials():
        manifest = store.open(SearchManifest.of(space, name, overrides=overrides, warm_start=sources))
        if sources:
            say(f"Warm start: {len(store.warm_start())} trials of other searches, as they were when this one began.")
        return store, manifest
    resolved = require_buildable(space)
    told = read_warm_start(warm_start, space, resolved)
    baseline = order0_bits_per_dim(resolved.data)
    manifest = SearchManifest.of(space, name, overrides=overrides, baseline_bits_per_dim=baseline, warm_start=sources)
    manifest = store.open(manifest)
    store.write_warm_start(told.rows)
    for line in told.lines() if warm_start else ():
        say(line)
    return store, manifest


def require_buildable(space: SearchSpace) -> Resolved:
    """Resolve the base, and refuse a space with a corner that the data's shape rules out."""
    resolved = resolve(space.base)
    for corner in space.corners():
        config = space.configure(corner)
        try:
            config.model.require_form(resolved.data.form)
            config.likelihood.require_form(resolved.data.form)
            require_workers(config, space.resources.workers)
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in corner.items())
            raise ConfigError(f"every corner of a search must be buildable, but {shown} is not: {error}") from None
    return resolved


def nothing_left(space: SearchSpace, ledger: Ledger) -> str | None:
    """Why no trial is left to run, or None."""
    budget = space.budget
    if len(ledger.ended) >= budget.trials:
        return f"all {budget.trials} trials are done"
    if budget.images is not None and ledger.spent_images() >= budget.images:
        return f"the budget of {budget.images:,} images is spent"
    if budget.gpu_hours is not None and ledger.spent_gpu_hours() >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} GPU-hours is spent"
    return None


def run_search(
    space: SearchSpace, store: SearchStore, manifest: SearchManifest, *, address: str | None, watcher: Watcher
) -> Outcome:
    """Run what is left of a search; the caller holds `store.lock()`."""
    ledger = Ledger(
        space,
        store,
        resources=space.resources,
        baseline=manifest.baseline_bits_per_dim,
        judge=judge_of(space),
    )
    done = nothing_left(space, ledger)
    if done is not None:
        return Outcome(ledger, interrupted=False, reason=done)
    resolved = require_buildable(space)
    require_same_data(store, resolved.data.identity.checksum)
    if manifest.final is not None:
        require_final_data(space, manifest.final)
    keeper = WeightKeeper(ledger)
    with Heartbeat(_LONGEST_STALL).watching() as heart, connect(address) as nodes:
        heart.beat()
        ledger.resources, concurrent = fit_to(nodes, space.resources, watcher.say)
        for line in _preflight(nodes, ledger.resources, store):
            watcher.say(line)
        store.write_launch(_launch(space, ledger.resources, concurrent))
        watcher.begin(ledger, ledger.resources, concurrent, resolved.data.form)
        try:
            stop = _Stop(space, ledger)
            runs = _Runs(stop, ledger, watcher, keeper, heart)
            runs.until_done(
                lambda: space.budget.trials - len(ledger.ended) - len(ledger.plans_to_try_alone()),
                lambda lost: _planner(space, ledger, waiting=[*ledger.plans_to_resume(), *lost]),
                concurrent,
            )
            alone = ledger.plans_to_try_alone()
            if alone and stop.reason is None:
                watcher.say(f"Out of memory on a shared GPU: {len(alone)} trials, each of which is now tried alone.")
                ledger.resources, concurrent = fit_to(nodes, replace(ledger.resources, gpus=1.0), watcher.say)
                runs.until_done(
                    lambda: space.budget.trials - len(ledger.ended),
                    lambda lost: _planner(
                        space, ledger, waiting=[*ledger.plans_to_try_alone(), *ledger.plans_to_resume(), *lost]
                    ),
                    concurrent,
                )
        finally:
            watcher.end()
    keeper.tidy_all()
    return Outcome(ledger, interrupted=stop.by_hand, reason=stop.reason or f"all {space.budget.trials} trials are done")


def _planner(space: SearchSpace, ledger: Ledger, *, waiting: Sequence[Plan]) -> Planner:
    """What plans the trials of a space; waiting: these first."""
    if isinstance(space, FinalSpace):
        return ListedPlans(space, ledger, waiting=waiting)
    from pixeltune.search.suggest import Suggester

    return Suggester(space, ledger, waiting=waiting)


def _launch(space: SearchSpace, resources: Resources, concurrent: int) -> dict[str, Any]:
    """What `pixeltune status` shows of it beside the rows."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "budget": asdict(space.budget),
        "resources": asdict(resources),
        "concurrent": concurrent,
    }


def _preflight(nodes: Sequence[Node], resources: Resources, store: SearchStore) -> list[str]:
    from pixeltune.search.nodes import preflight

    return preflight(nodes, resources, store.folder)


def require_same_data(store: SearchStore, checksum: str) -> None:
    """Where the data lies is no part of a search's identity; what it is, is."""
    for row in store.trials():
        if row["data_checksum"] not in (None, checksum):
            raise StoreError(
                f"a search must go on with the images it began with (checksum {row['data_checksum']}), "
                f"but got {checksum}; give it the same data, or take another name or --storage"
            )


class _Stop:
    """Whether the search should end now, and why: a limit of its budget, or the user."""

    def __init__(self, space: SearchSpace, ledger: Ledger) -> None:
        self._space = space
        self._ledger = ledger
        self._started = time.monotonic()
        self.reason: str | None = None
        self.by_hand = False

    def due(self) -> bool:
        budget = self._space.budget
        if self.reason is None and budget.hours and time.monotonic() - self._started > budget.hours * 3600:
            self.reason = f"the {budget.hours:g} hours of this launch are over"
        if self.reason is None and len(self._ledger.ended) < budget.trials:
            self.reason = nothing_left(self._space, self._ledger)
        return self.reason is not None

    def interrupt(self) -> None:
        self.reason, self.by_hand = "interrupted", True


@dataclass(frozen=True)
class _Runs:
    """Runs of Ray Tune, one after another: as many as it takes until no trial is left."""

    stop: _Stop
    ledger: Ledger
    watcher: Watcher
    keeper: WeightKeeper
    heart: Heartbeat

    def until_done(
        self, left: Callable[[], int], planner: Callable[[Sequence[Plan]], Planner], concurrent: int
    ) -> None:
        """Run trials until none is `left`. `planner`: given the plans that a run of Tune dropped before they began.

        One run is the rule. SearchError where several in a row end no trial.
        """
        lost: Sequence[Plan] = ()
        fruitless = 0
        while (trials := left()) > 0 and self.stop.reason is None:
            ended = len(self.ledger.ended)
            lost, stuck = self.once(trials, planner(lost), concurrent)
            fruitless = 0 if len(self.ledger.ended) > ended else fruitless + 1
            if fruitless == _MOST_FRUITLESS_RUNS:
                raise SearchError(
                    f"Ray Tune must run trials, but {fruitless} times in a row none came to its end "
                    f"({stuck or 'they were dropped'}); see to the cluster, and give the same command"
                )
            if stuck:
                self.watcher.say(f"Ray Tune is started anew: {stuck}.")

    def once(self, trials: int, planner: Planner, concurrent: int) -> tuple[Sequence[Plan], str]:
        """Run so many trials, as the planner plans them and with the ledger's resources.

        Returns the plans that Tune dropped before they began, and why it has to be started anew, or "".
        """
        from ray import tune

        from pixeltune.search import tuning
        from pixeltune.search.rescue import RescueCallback

        ledger = self.ledger
        seats = tuning.Seats(planner, ledger, self._on_change, most=concurrent, say=self.watcher.say)
        together = ledger.resources.workers > 1
        with _scratch(ledger.store, shared=together) as scratch, _interrupts(self.stop, self.watcher):
            tuner = tune.Tuner(
                tuning.trainable(ledger.resources),
                tune_config=tune.TuneConfig(
                    search_alg=tuning.SuggestSearcher(seats, scratch),
                    scheduler=tuning.LedgerScheduler(seats),
                    num_samples=trials,
                    max_concurrent_trials=concurrent,
                    reuse_actors=not together,
                    trial_dirname_creator=tuning.directory_of,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    stop=tuning.LimitStopper(lambda: seats.is_over or self.stop.due()),
                    failure_config=tune.FailureConfig(max_failures=1),
                    callbacks=[
                        RescueCallback(seats, self.heart),
                        tuning.LedgerCallback(seats),
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
        self.watcher.change()


@contextmanager
def _scratch(store: SearchStore, *, shared: bool) -> Iterator[str]:
    """A folder for what Tune and Train keep of themselves, of no use afterwards.

    Workers on several nodes must all see Train's, so it lies in the search's own folder; Tune's alone stays local.
    """
    if shared:
        location = files.join(store.folder, ".scratch")
        location = location if files.is_uri(location) else str(files.local_path(location).resolve())
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


@contextmanager
def _interrupts(stop: _Stop, watcher: Watcher) -> Iterator[None]:
    """Ctrl-C ends the search after this moment's bookkeeping; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.by_hand:
            raise KeyboardInterrupt
        stop.interrupt()
        watcher.say("Stopping: running trials keep their last checkpoint. Ctrl-C again to leave at once.")

    before: dict[signal.Signals, Any] = {}
    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, handle)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
