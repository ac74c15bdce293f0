"""Recovery of trials that hang, are dropped or cannot start, as a callback of Ray Tune.

Tune's loop calls it about ten times a second, also when no result arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from pixeltune.errors import SearchError
from pixeltune.format import minutes
from pixeltune.space import Resources
from pixeltune.tune.adapters import NotPickled
from pixeltune.tune.preemption import draining_nodes
from pixeltune.tune.ray_session import HEAD, gcs_address, places_on
from pixeltune.tune.run_state import TuneRunState
from pixeltune.tune.watchdog import LauncherWatchdog, LeakedPlacementGroups

_IDLE_SECONDS = 120.0
"""Free resources are taken within seconds; a trial that waits this long next to them was forgotten by Tune."""
_RESET_SECONDS = 180.0
"""An actor that is reset for the next trial answers within TUNE_FUNCTION_THREAD_TIMEOUT_S."""
_EMPTY_SECONDS = 90.0
"""Train waits 60 s for a group, and fills a group that it has obtained within seconds."""
_LOOK_AT_GROUPS_SECONDS = 15.0


class HangRecoveryCallback(NotPickled, tune.Callback):
    """The recovery: it kills silent trials, replans dropped ones, frees leaked groups, and ends a stuck run of Tune."""

    def __init__(self, run_state: TuneRunState, watchdog: LauncherWatchdog) -> None:
        super().__init__()
        self._run_state = run_state
        self._launcher = watchdog
        self._patience = run_state.patience
        self._idle_since: float | None = None
        self._resetting_since: dict[str, float] = {}
        self._leaked_groups = LeakedPlacementGroups(_EMPTY_SECONDS)
        self._groups_due = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Do the checks at one step of Tune's loop."""
        self._launcher.beat()
        with self._run_state.guarded():
            now = self._run_state.look()
            open_trials = [trial for trial in trials if self._run_state.is_open(trial.trial_id)]
            self._kill_silent(open_trials)
            self._kill_stuck_resets(open_trials, now)
            self._take_back_dropped(open_trials)
            if self._run_state.resources.workers > 1:
                self._free_leaked_groups(open_trials, now)
            self._require_progress(open_trials, now)

    def _kill_silent(self, open_trials: list[Any]) -> None:
        running = {trial.trial_id: trial for trial in open_trials if trial.status == Trial.RUNNING}
        for trial_id in self._run_state.kill_silent(list(running)):
            _kill(running[trial_id])

    def _kill_stuck_resets(self, open_trials: list[Any], now: float) -> None:
        """Kill reused actors that are still busy with the previous trial."""
        resetting = [
            trial for trial in open_trials if trial.status == Trial.PENDING and trial.temporary_state.ray_actor
        ]
        since = {trial.trial_id: self._resetting_since.get(trial.trial_id, now) for trial in resetting}
        for trial in resetting:
            if now - since[trial.trial_id] > _RESET_SECONDS:
                since[trial.trial_id] = now
                _kill(trial)
        self._resetting_since = since

    def _take_back_dropped(self, open_trials: list[Any]) -> None:
        """Replan dropped trials: if an actor cannot be reset, Tune drops the next trial and calls no hook."""
        for trial in open_trials:
            if trial.status == Trial.ERROR:
                self._run_state.drop(trial.trial_id)

    def _free_leaked_groups(self, open_trials: list[Any], now: float) -> None:
        """Free the groups of trials of several workers whose driver was killed before Train's cleaner knew of them.

        These are the groups of this job that are not Tune's and have held no actor for a while. The cleaner needs the
        same API.
        """
        if now < self._groups_due:
            return
        self._groups_due = now + _LOOK_AT_GROUPS_SECONDS
        if all(trial.status == Trial.RUNNING and trial.last_result for trial in open_trials):
            return
        groups, used = _groups_of_this_job()
        for group in self._leaked_groups.leaked(groups, used, now):
            self._run_state.say("Resources that a stopped trial had left reserved are free again.")
            _remove_group(group)

    def _require_progress(self, open_trials: list[Any], now: float) -> None:
        """Require that a trial runs or will run: resources for it are free, or become free within the start limit."""
        if not open_trials or any(trial.status == Trial.RUNNING for trial in open_trials):
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
        idle, resources = now - self._idle_since, self._run_state.resources
        if idle > _IDLE_SECONDS and _has_room(resources):
            self._run_state.request_restart(f"no trial has started for {idle:.0f} s although there is room for one")
        elif idle > 60 * self._patience.start_minutes:
            raise SearchError(
                f"a trial must find its place in the cluster within patience.start_minutes, but none has started for "
                f"{minutes(idle)}: it needs {_needs(resources)}, and there are {_free()} free; see to the cluster, "
                "or wait longer with --set patience.start_minutes=N, and give the same command"
            )


def _kill(trial: Any) -> None:
    """End a trial's process in any state: if it does not answer, the node's daemon kills it within seconds.

    Its children, Train's controller and workers, end with it.
    """
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor, no_restart=True)


def _groups_of_this_job() -> tuple[list[str], set[str]]:
    """Return groups of Train's workers, and those that hold an actor; none if the State API does not answer."""
    from ray.util.state import list_actors, list_placement_groups
    from ray.util.state.exception import RayStateApiException

    job, address = ray.get_runtime_context().get_job_id(), gcs_address()
    try:
        groups = list_placement_groups(
            filters=[("creator_job_id", "=", job), ("state", "!=", "REMOVED")],
            address=address,
            detail=True,
            timeout=10,
            limit=1000,
        )
        actors = list_actors(
            filters=[("job_id", "=", job), ("state", "!=", "DEAD")],
            address=address,
            detail=True,
            timeout=10,
            limit=1000,
        )
    except (RayStateApiException, OSError):
        return [], set()
    of_train = [group for group in groups if not any(HEAD in str(bundle) for bundle in group.bundles or ())]
    return [group.placement_group_id for group in of_train], {actor.placement_group_id for actor in actors}


def _remove_group(group: str) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _free_nodes() -> list[Mapping[str, float]]:
    from ray._private.state import available_resources_per_node

    leaving = draining_nodes()
    return [free for node, free in available_resources_per_node().items() if node not in leaving]


def _has_room(resources: Resources) -> bool:
    return sum(places_on(node, resources) for node in _free_nodes()) >= resources.workers


def _needs(resources: Resources) -> str:
    each = f"{resources.cpus} CPUs" + (f" and {resources.gpus:g} GPUs" if resources.gpus else "")
    return f"{resources.workers} times {each}"


def _free() -> str:
    nodes = _free_nodes()
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs"
