"""Opening and running a search: what is left to do, on which cluster, until which limit.

Ray and Optuna's samplers are imported only when there is something to run: a finished search answers from Parquet at
once, and `pixeltune train`, which opens its results here, needs neither.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from pixeltune.config import DataConfig, ImageSpec, require_workers
from pixeltune.data import Resolved, load_data, order0_bits_per_dim, resolve
from pixeltune.errors import ConfigError, DataError, MissingPackageError, StoreError, first_line
from pixeltune.format import counted, dollars
from pixeltune.results.extension import changes, obstacles
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.own_keys import require_code
from pixeltune.results.ranking import RANKED
from pixeltune.results.repeats import seeds_text
from pixeltune.results.schema import Status
from pixeltune.results.stop_requests import StopRequestReader, remove_stop_requests
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import TrialPlan
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.final import require_final_data
from pixeltune.search.pruners import pruner_for
from pixeltune.search.repeat_planning import has_open_leader
from pixeltune.search.space_history import SpaceHistory, with_earlier_first
from pixeltune.search.state import SearchState
from pixeltune.search.warm_start import ids_of, read_warm_start
from pixeltune.space import FinalSpace, Resources, SearchSpace
from pixeltune.space.sampler_names import GRID

if TYPE_CHECKING:
    from pixeltune.search.searcher import TrialSource

SAVE_SECONDS = 8.0
"""Seconds that running trials have to save their state before a search ends; a trial that needs longer keeps the state
of its last report."""


@dataclass(frozen=True)
class Round:
    """Trials that all get the same resources.

    A search has one round for all trials but those that ran out of memory on a GPU that they shared, and then one for
    these, each with a whole GPU.

    Attributes:
        state: What is known of the search.
        resources: What a trial gets.
        concurrent: How many trials run at once.
        exclusive: Whether it is the round of the trials that ran out of memory on a shared GPU.
    """

    state: SearchState
    resources: Resources
    concurrent: int
    exclusive: bool = False

    @property
    def trials_left(self) -> int:
        """Return how many trials of the budget are still to end in this round."""
        left = self.state.space.budget.trials - len(self.state.ended)
        return left if self.exclusive else left - len(self.state.plans_to_retry_exclusively())

    def source(self, dropped: Sequence[TrialPlan] = ()) -> TrialSource:
        """Return the source of trials; waiting ones come first, then `dropped` ones, then new ones."""
        from pixeltune.search.searcher import FixedTrials, OptunaSearcher

        state = self.state
        exclusive = state.plans_to_retry_exclusively() if self.exclusive else []
        waiting = [*exclusive, *state.plans_to_resume(), *dropped]
        if isinstance(state.space, FinalSpace):
            return FixedTrials(state.space, state, waiting=waiting)
        return OptunaSearcher(state.space, state, waiting=waiting)


class TrialRunner(Protocol):
    """A runner of trials on the machines that a backend has found."""

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        """Return the resources that a trial gets of those it requests, and how many trials run at once.

        Raises:
            SearchError: There is no room for a single trial.
        """

    def check(self, resources: Resources) -> None:
        """Refuse machines that cannot run a trial with these resources."""

    def run(self, round_: Round) -> None:
        """Run the trials of a round until none is left."""


class Backend(Protocol):
    """A place to run the trials of a search; `pixeltune.cluster.ray_backend` has the one that uses Ray."""

    def require(self, space: SearchSpace) -> None:
        """Refuse requests that can never run there, before anything is started."""

    def start(
        self, state: SearchState, stop: Stop, callback: SearchCallback, retention: CheckpointRetention
    ) -> AbstractContextManager[TrialRunner]:
        """Return a context in which trials can run."""


@dataclass(frozen=True)
class Outcome:
    """The end of a launch. interrupted: stopped by hand, before its budget. reason: why it ended."""

    state: SearchState
    interrupted: bool
    reason: str

    @property
    def has_result(self) -> bool:
        """Return whether any trial has a result, of this launch or of an earlier one."""
        return any(row["status"] in RANKED for row in self.state.ended.values())


def open_search(
    space: SearchSpace,
    name: str,
    storage: str,
    *,
    overrides: dict[str, Any] | None = None,
    warm_start: Sequence[str] = (),
    extend: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[SearchStore, SearchManifest]:
    """Create or reopen the search's results folder; the baseline is computed once and kept there.

    warm_start: results of other searches. The rows for the sampler are copied into the folder when the search
    begins; the other searches are not read again. extend: whether a changed space becomes a new version, if all trials
    that the earlier one allows keep their meaning. say: prints lines about the data, the warm start and the extension.
    """
    store = SearchStore(storage, name)
    sources = tuple(sorted({location.rstrip("/").rpartition("/")[2] for location in warm_start}))
    if store.has_trials():
        sources = _as_when_begun(sources, warm_start, store.manifest())
        wanted, known = SearchManifest.of(space, name, overrides=overrides, warm_start=sources), store.manifest()
        if extend and wanted.difference(known):
            wanted = _extension(wanted, known, space, store)
        manifest = store.open(wanted, extend=extend)
        if len(manifest.versions) > len(known.versions):
            say(f"Space: version {len(manifest.versions)} from now on: {'; '.join(changes(manifest, known))}.")
        if sources:
            say(f"Warm start: {len(store.warm_start())} trials of other searches, as they were when this one began.")
        before = len(manifest.first)
        manifest = store.add_first(manifest, space.first_suggestions())
        if len(manifest.first) > before:
            more = counted(len(manifest.first) - before, "configuration")
            say(f"First: {more} more, to be tried next unless they were tried before.")
        return store, manifest
    resolved = require_buildable(space)
    for note in resolved.data.notes:
        say(f"Data note: {note}")
    start = read_warm_start(warm_start, space, resolved)
    manifest = SearchManifest.of(
        space,
        name,
        overrides=overrides,
        baseline_bits_per_dim=order0_bits_per_dim(resolved.data),
        warm_start=sources,
        warm_start_ids=tuple(sorted(start.ids)) if all(start.ids) else (),
        data_checksum=resolved.data.identity.checksum,
    )
    manifest = store.open(manifest)
    store.write_warm_start(start.rows)
    for line in start.lines() if warm_start else ():
        say(line)
    return store, manifest


def _extension(wanted: SearchManifest, known: SearchManifest, space: SearchSpace, store: SearchStore) -> SearchManifest:
    """Return the manifest of an extension; refuse one that cannot run before anything is written."""
    if obstacles(wanted, known):
        return wanted  # `SearchStore.open` says why it is none
    resolved = require_buildable(space)
    require_same_data(store, space.base.data, resolved.data.identity.checksum)
    require_same_code(store)
    return with_earlier_first(wanted, known, space)


def _as_when_begun(names: tuple[str, ...], locations: Sequence[str], known: SearchManifest) -> tuple[str, ...]:
    """Return the names that the sources of a warm start had when the search began, if their ids are the same."""
    is_renamed = names != known.warm_start and known.warm_start_ids
    return known.warm_start if is_renamed and ids_of(locations) == known.warm_start_ids else names


def require_buildable(space: SearchSpace) -> Resolved:
    """Resolve the base, and refuse a space with a corner that the data's shape rules out."""
    resolved = resolve(space.base)
    require_corners(space, resolved.data.form)
    return resolved


def require_corners(space: SearchSpace, form: ImageSpec) -> None:
    """Refuse a space with a corner that images of this shape rule out."""
    for corner in space.corners():
        config = space.configure(corner)
        try:
            config.model.require_form(form)
            config.likelihood.require_form(form)
            require_workers(config, space.resources.workers)
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in corner.items())
            raise ConfigError(f"every corner of a search must be buildable, but {shown} is not: {error}") from None


def run_search(
    space: SearchSpace,
    store: SearchStore,
    manifest: SearchManifest,
    *,
    backend: Backend,
    callback: SearchCallback,
    retries: Collection[Status] = (),
    max_concurrent: int | None = None,
) -> Outcome:
    """Run what is left of a search; the caller holds `store.lock()`.

    Args:
        space: What is searched.
        store: Where the results are kept.
        manifest: What `open_search` or `open_final` returned with the store.
        backend: Where trials run; it is started only if trials are left.
        callback: Called as trials start, report and end.
        retries: The statuses of ended trials that are tried again.
        max_concurrent: How many trials run at once at most; as many as the machines hold by default.
    """
    space = space.with_first(manifest.first)  # also those that earlier launches were given
    remove_stop_requests(store.folder)  # what is left is for an earlier launch
    state = SearchState(
        space,
        store,
        baseline=manifest.baseline_bits_per_dim,
        pruner=pruner_for(space),
        data_checksum=manifest.data_checksum,
        retries=retries,
        history=SpaceHistory.of(space, manifest),
    )
    if state.outside:
        callback.say(
            f"Not given to the sampler: {counted(len(state.outside), 'trial')} of earlier versions of the space, which "
            "it lacks now. Tables show them."
        )

    # A finished search answers from its results: no cluster is started, and no data is downloaded.
    done = nothing_left(space, state)
    if done is not None:
        require_same_data_if_readable(store, space.base.data, callback.say)
        require_same_code(store)
        state.write_lost_decisions()
        _write_end(store, space, done)
        return Outcome(state, interrupted=False, reason=done)

    # Refuse what cannot run before anything is started or written.
    resolved = require_buildable(space)
    require_same_data(store, space.base.data, resolved.data.identity.checksum)
    require_same_code(store)
    backend.require(space)
    state.write_lost_decisions()
    if manifest.final is not None:
        require_final_data(space, manifest.final)

    retention = CheckpointRetention(state)
    stop = Stop(space, state, callback.say)
    with backend.start(state, stop, callback, retention) as runner:
        # A trial's resources depend on the machines, which are known only now.
        resources, places = runner.capacity(space.resources)
        shared = Round(state, resources, min(places, max_concurrent or places))
        require_price(space, shared.resources.dollars_per_hour)
        runner.check(shared.resources)
        store.write_launch(_launch(shared))
        callback.begin(state, shared.resources, shared.concurrent, resolved.data.form)
        if space.budget.dollars is not None and (unpriced := state.trials_without_price()):
            callback.say(f"Not in budget.dollars: {counted(len(unpriced), 'trial')} of before, without a known price.")
        try:
            runner.run(shared)

            # Trials that ran out of memory next to others are run again, each on a GPU of its own.
            waiting = state.plans_to_retry_exclusively()
            if waiting and stop.reason is None:
                callback.say(f"Out of memory on a shared GPU: {len(waiting)} trials, each now tried alone.")
                given = replace(shared.resources, dollars_per_hour=space.resources.dollars_per_hour)
                runner.run(Round(state, *runner.capacity(given.with_whole_gpu()), exclusive=True))
        finally:
            callback.end()
            with suppress(StoreError, OSError):  # requests that stay are removed by the next launch
                remove_stop_requests(store.folder)

    # Only the best trials keep their weights.
    retention.tidy_all()
    reason = stop.reason or nothing_left(space, state) or "no configuration is left that was not tried"
    _write_end(store, space, reason)
    return Outcome(state, interrupted=stop.by_hand, reason=reason)


def require_price(space: SearchSpace, dollars_per_hour: float | None) -> None:
    """Refuse a budget in dollars if the price of a trial is not known.

    Raises:
        ConfigError: `budget.dollars` is set and the price is None.
    """
    if space.budget.dollars is not None and dollars_per_hour is None:
        raise ConfigError(
            "budget.dollars needs the price of a trial, but it is not known; set resources.dollars_per_hour to what an "
            "hour of all that a trial takes costs, or metadata.dollars_per_hour of each node type in the cluster file"
        )


def _launch(shared: Round) -> dict[str, Any]:
    """Return what `pixeltune status` shows about a launch in addition to the rows."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "budget": asdict(shared.state.space.budget),
        "resources": asdict(shared.resources),
        "concurrent": shared.concurrent,
    }


def _write_end(store: SearchStore, space: SearchSpace, reason: str) -> None:
    """Write why the launch ended, for other shells."""
    launch = store.launch()
    if launch.get("ended") != reason:
        store.write_launch(launch | {"budget": asdict(space.budget), "ended": reason})


def require_same_data(store: SearchStore, data: DataConfig, checksum: str) -> None:
    """Refuse images that the results were not measured on; their location may change, their content may not.

    Args:
        store: The results.
        data: The images that are given.
        checksum: Of these images.

    Raises:
        StoreError: A row, or the baseline, is of other images.
    """
    rows = [(row["data_checksum"], row["data.path"]) for row in store.trials()]
    for known, path in [*rows, (store.manifest().data_checksum, None)]:
        if known not in (None, checksum):
            where = f" at {path}" if path else ""
            given = f" at {data.path}" if data.path else ""
            raise StoreError(
                f"{store.search} must go on with the images it began with (checksum {known}{where}), but got {checksum}"
                f"{given}; give it the same images with --set data.path=…, or take another name or --storage"
            )


def require_same_code(store: SearchStore) -> None:
    """Refuse code of the user's own that the results were not made with, of the classes that this process has imported.

    Raises:
        StoreError: A row names such a class, and its source files were others.
    """
    for row in store.trials():
        require_code(f"{store.search}/{row['trial']}", row)


def require_same_data_if_readable(store: SearchStore, data: DataConfig, say: Callable[[str], None]) -> None:
    """Refuse stored results of other images than `data` names; say so if these cannot be read now.

    Nothing is downloaded for the comparison.

    Raises:
        StoreError: The results are of other images.
    """
    here = data.model_copy(update={"download": False}) if data.download else data
    try:
        checksum = load_data(here).identity.checksum
    except (DataError, MissingPackageError) as error:
        reason = first_line(error)
        say(f"Not checked: whether {store.search} was measured on these images, which cannot be read now ({reason}).")
        return
    require_same_data(store, data, checksum)


def nothing_left(space: SearchSpace, state: SearchState) -> str | None:
    """Return why no trial is left to run, or None."""
    budget, first = space.budget, space.objectives[0]
    reached = state.at_target() if budget.target is not None else None
    if reached is not None:
        over = f" (mean of {seeds_text(reached)})" if seeds_text(reached) else ""
        return (
            f"trial {reached['trial']} reached the target, with {first} {reached[first]:.6g}{over} for "
            f"{budget.target:g}"
        )
    is_repeating = partial(has_open_leader, space, state.ended.values(), state.outside)
    if budget.patience is not None and state.without_improvement() >= budget.patience and not is_repeating():
        least = f" by {budget.min_delta:g} or more" if budget.min_delta else ""
        return f"{first} did not improve{least} in {counted(budget.patience, 'finished trial')} in a row"
    if len(state.ended) >= budget.trials:
        return f"all {budget.trials} trials are done" if budget.trials > 1 else "the only trial is done"
    if space.num_configurations is not None and len(state.ended) >= space.num_configurations and not is_repeating():
        inside = [row for trial, row in state.ended.items() if trial not in state.outside]
        tried = {frozenset(space.suggestion_of(row).items()) for row in inside}
        if len(tried) >= space.num_configurations:
            of_what = "grid" if space.sampler == GRID else "space"
            return f"all {space.num_configurations} configurations of the {of_what} are tried"
    if budget.images is not None and state.spent_images() >= budget.images:
        return f"the budget of {budget.images:,} images is spent"
    if budget.gpu_hours is not None and state.spent_gpu_hours() >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} GPU-hours is spent"
    if budget.dollars is not None and state.spent_dollars() >= budget.dollars:
        return f"the budget of {dollars(budget.dollars)} is spent"
    return None


class Stop:
    """The stopping criteria of a search: the limits of its budget, trials that all fail alike, and the user.

    The user may stop it, or single trials, from another shell too; `due` looks for such requests every few seconds.

    Args:
        space: What is searched.
        state: What is known of the search.
        say: Prints a line for the user.
        clock: Returns seconds.
    """

    def __init__(
        self,
        space: SearchSpace,
        state: SearchState,
        say: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = space
        self._state = state
        self._say = say
        self._clock = clock
        self._started = clock()
        self._requests = StopRequestReader(state.store.folder, clock)
        self.reason: str | None = None
        self.by_hand = False

    def due(self) -> bool:
        """Return whether the search must end now."""
        budget = self._space.budget
        self._look_for_requests()
        if self.reason is None and budget.hours and self._clock() - self._started > budget.hours * 3600:
            self.reason = f"the {budget.hours:g} hours of this launch are over"
        if self.reason is None and len(self._state.ended) < budget.trials:
            self.reason = nothing_left(self._space, self._state) or self._all_fail()
        return self.reason is not None

    def _all_fail(self) -> str | None:
        """Return that the first trials failed for the same reason, as the others would."""
        ended = self._state.ended
        if not self._state.ends_by_failure(ended.values()):
            return None
        return f"{len(ended)} trials failed for the same reason, and none has a result"

    @property
    def what_is_saved(self) -> str:
        """Return what happens to the running trials before the search ends."""
        running = len(self._state.running)
        return f"saving {counted(running, 'trial')}, up to {SAVE_SECONDS:.0f} s" if running else "no trial is running"

    def interrupt(self) -> None:
        """End the search at the user's request."""
        self.reason, self.by_hand = "interrupted", True

    def _look_for_requests(self) -> None:
        """Do what other shells have requested."""
        requests = self._requests.look()
        self._state.request_stop(requests.trials)
        if requests.is_launch and self.reason is None:
            self.interrupt()
            self._say(f"Stopping, as another shell requests: {self.what_is_saved}.")


@contextmanager
def interrupts(stop: Stop, callback: SearchCallback) -> Iterator[None]:
    """Let Ctrl-C end the search after the current bookkeeping; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.by_hand:
            raise KeyboardInterrupt
        stop.interrupt()
        callback.say(f"Stopping: {stop.what_is_saved}. Ctrl-C again to leave at once.")

    before: dict[signal.Signals, Any] = {}
    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, handle)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
