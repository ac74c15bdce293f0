"""A search from its files to its end: what is left to do, on which cluster, until which limit.

Ray is imported only when there is something to run, so that a finished search answers from Parquet at once.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from pixeltune import files
from pixeltune.config import ImageForm, TrialConfig
from pixeltune.data import Resolved, order0_bits_per_dim, resolve
from pixeltune.errors import ConfigError, PixeltuneError, SearchError, StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.search.ledger import Ledger
from pixeltune.search.scheduler import Rungs
from pixeltune.search.suggest import Suggester
from pixeltune.search.trial import state_file
from pixeltune.space import Resources, SearchSpace

_QUIET_RAY = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

_NOT_FOR_NODES = (".git", ".venv", "results", "data", "dist", "**/__pycache__", "tests")


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
    space: SearchSpace, name: str, storage: str, *, overrides: dict[str, Any] | None = None
) -> tuple[SearchStore, SearchManifest]:
    """Begin or go on with the search's results folder; the baseline is computed once and kept there."""
    store = SearchStore(storage, name)
    if store.exists():
        return store, store.open(SearchManifest.of(space, name, overrides=overrides))
    resolved = require_buildable(space)
    baseline = order0_bits_per_dim(resolved.data)
    manifest = SearchManifest.of(space, name, overrides=overrides, baseline_bits_per_dim=baseline)
    return store, store.open(manifest)


def require_buildable(space: SearchSpace) -> Resolved:
    """Resolve the base, and refuse a space with a corner that the data's shape rules out."""
    resolved = resolve(space.base)
    for corner in space.corners():
        config = space.configure(corner)
        try:
            _require_form(config, resolved)
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in corner.items())
            raise ConfigError(f"every corner of a search must be buildable, but {shown} is not: {error}") from None
    return resolved


def _require_form(config: TrialConfig, resolved: Resolved) -> None:
    if config.data == resolved.config.data:
        config.model.require_form(resolved.data.form)
        config.likelihood.require_form(resolved.data.form)
    else:
        resolve(config)


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
    rungs = Rungs(space.scheduler, space.objectives[0]) if space.scheduler else None
    ledger = Ledger(
        space,
        store,
        resources=space.resources,
        baseline=manifest.baseline_bits_per_dim,
        judge=rungs.judge if rungs else None,
    )
    done = nothing_left(space, ledger)
    if done is not None:
        return Outcome(ledger, interrupted=False, reason=done)
    resolved = require_buildable(space)
    _require_same_data(ledger, resolved)
    form = resolved.data.form
    if rungs:
        for trial in [*ledger.ended, *(plan.trial for plan in ledger.plans_to_resume())]:
            rungs.remember(trial, {point["images_seen"]: point for point in store.curve(trial)})
    with _ray(address) as cluster:
        ledger.resources, concurrent = _fit_to(cluster, space.resources, watcher)
        watcher.begin(ledger, ledger.resources, concurrent, form)
        try:
            stop = _tune(space, ledger, concurrent, watcher)
        finally:
            for trial in list(ledger.live):
                ledger.finish(trial)
            watcher.end()
    _keep_best(ledger)
    return Outcome(ledger, interrupted=stop.by_hand, reason=stop.reason or f"all {space.budget.trials} trials are done")


def _require_same_data(ledger: Ledger, resolved: Resolved) -> None:
    """Where the data lies is no part of a search's identity; what it is, is."""
    here = resolved.data.identity.checksum
    varied = any(key.startswith("data.") for key in ledger.space.vary)
    for row in ledger.ended.values():
        if row["data_checksum"] not in (None, here) and not varied:
            raise StoreError(
                f"a search must go on with the images it began with (checksum {row['data_checksum']}), "
                f"but got {here}; give it the same data, or take another name or --storage"
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


def _tune(space: SearchSpace, ledger: Ledger, concurrent: int, watcher: Watcher) -> _Stop:
    from ray import tune

    from pixeltune.search import tuning

    stop = _Stop(space, ledger)
    together = ledger.resources.workers > 1
    with _scratch(ledger.store, shared=together) as scratch, _interrupts(stop, watcher):
        searcher = tuning.SuggestSearcher(Suggester(space, ledger), ledger, scratch=scratch, on_change=watcher.change)
        tuner = tune.Tuner(
            tuning.trainable(ledger.resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=tuning.LedgerScheduler(ledger, searcher, watcher.change),
                num_samples=space.budget.trials - len(ledger.ended),
                max_concurrent_trials=concurrent,
                reuse_actors=not together,
                trial_dirname_creator=tuning.directory_of,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                stop=tuning.LimitStopper(stop.due),
                failure_config=tune.FailureConfig(max_failures=1),
                callbacks=[tuning.LedgerCallback(ledger, searcher), *space.callbacks],
            ),
        )
        try:
            tuner.fit()
        except PixeltuneError:
            raise
        except Exception as error:
            cause = _our_cause(error)
            raise cause or SearchError(f"Ray Tune must run to its end, but stopped with {error!r}") from error
    return stop


def _our_cause(error: BaseException | None) -> PixeltuneError | None:
    while error is not None:
        if isinstance(error, PixeltuneError):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _ray(address: str | None) -> Iterator[dict[str, float]]:
    """A Ray to run on: the one at `address`, else a local one that ends with the search."""
    for key, value in _QUIET_RAY.items():
        os.environ.setdefault(key, value)
    if address is not None:
        _require_answer(address)
    warnings.filterwarnings("ignore", module=r"ray\..*")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=None,
            )
            _tighten_token()
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=_runtime_env())
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SearchError(f"a Ray cluster must answer at {address or 'this machine'}, but: {reason}") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _runtime_env() -> dict[str, Any]:
    """Nodes get the working directory (search files, own data functions) and this package's code."""
    package = Path(__file__).resolve().parents[1]
    return {
        "working_dir": str(Path.cwd()),
        "excludes": list(_NOT_FOR_NODES),
        "py_modules": [str(package)],
        "env_vars": {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": _QUIET_RAY["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]},
    }


def _require_answer(address: str) -> None:
    """A quick look whether anything listens, for Ray itself would retry for a long time."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if not host or not port.isdigit():
            raise OSError("it is not of the form HOST:PORT or ray://HOST:PORT")
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SearchError(
            f"a Ray cluster must answer at --address, but {address} does not ({error}); "
            "start one with `ray start --head`, or leave --address out to run on this machine"
        ) from None


def _tighten_token() -> None:
    """Ray writes its token readable by all."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():
        token.chmod(0o600)


def _fit_to(cluster: dict[str, float], wanted: Resources, watcher: Watcher) -> tuple[Resources, int]:
    """What a trial really takes here, and how many run at once; SearchError where none ever could."""
    have = {"CPU": cluster.get("CPU", 0.0), "GPU": cluster.get("GPU", 0.0)}
    resources = wanted
    if wanted.gpus and not have["GPU"]:
        watcher.say("No GPU in this cluster: the trials train on the CPU.")
        resources = replace(wanted, gpus=0.0)
    needs = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * resources.gpus}
    for kind, need in needs.items():
        if need > have[kind]:
            raise SearchError(
                f"a trial must fit the cluster, but {resources.workers} workers need {need:g} {kind}s "
                f"and there are {have[kind]:g}; lower `resources.workers` or `resources.{kind.lower()}s` with --set"
            )
    return resources, max(1, int(min(have[kind] / need for kind, need in needs.items() if need)))


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


def _keep_best(ledger: Ledger) -> None:
    """Weights of the best trials stay; states stay only with trials that may go on."""
    ended = [row for row in ledger.ended.values() if row.get(ledger.objective) is not None]
    ranked = sorted(ended, key=lambda row: row[ledger.objective])
    keep = {row["trial"] for row in ranked[: ledger.space.keep]}
    for trial in ledger.ended:
        folder = ledger.store.checkpoint(trial)
        if trial in keep:
            files.remove(state_file(folder))
        else:
            files.remove(folder)
