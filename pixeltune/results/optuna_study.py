"""Results as an Optuna study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pixeltune.files import Location
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.own_keys import has_key
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import is_unconfirmed
from pixeltune.results.repeats import MERGED, merge_repeats
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.space.keys import as_drawn
from pixeltune.space.metrics import METRICS, violations

_STATES = {
    Status.FINISHED: TrialState.COMPLETE,
    Status.PRUNED: TrialState.PRUNED,
    Status.STOPPED: TrialState.PRUNED,
    Status.DIVERGED: TrialState.FAIL,
    Status.OOM: TrialState.FAIL,
    Status.FAILED: TrialState.FAIL,
    Status.REJECTED: TrialState.FAIL,
    Status.INTERRUPTED: TrialState.FAIL,
    Status.RUNNING: TrialState.RUNNING,
}

_NAMES = ("trial", "number", "status", "reason", "config_key")
_MORE = (
    *("attempt", "proposed_by", "images_seen", "is_bound", "bits_verified", "images_per_second", "dollars"),
    *(*METRICS, *MERGED),
)
"""Columns of the row in the user attributes of a trial; of the second group, those that the trial has."""


def study(search_folder: Location) -> optuna.Study:
    """Return one search as an Optuna study in memory, for `optuna.visualization` and `optuna.importance`.

    Args:
        search_folder: The folder of a search, such as `results/digits_quick`; a path or a URI.

    Returns:
        A study in which finished trials are COMPLETE; pruned and stopped ones are PRUNED, with their curve as
        intermediate values (one objective only); diverged, oom, failed, interrupted and rejected ones are FAIL, and so
        are those whose bits a real code refutes; running trials are left out. Constraints are Optuna's, so
        `best_trials` satisfy them.
        `trial.user_attrs` has the trial's name, number, status, reason and config_key, and what is known of its
        metrics, attempt, origin and speed.
        In a search with repeats there is one trial a configuration, with the means over its seeds that have ended;
        `seeds`, `seeds_left`, `runs` and `METRIC_error` are among its user attributes.

    Raises:
        StoreError: The folder holds no search, or it cannot be read.
    """
    store = SearchStore.at(search_folder)
    manifest = store.manifest()
    return study_of(manifest, store.trials(), store.curves() if len(manifest.objectives) == 1 else [])


def study_of(manifest: SearchManifest, rows: Iterable[Row], reports: Iterable[Row]) -> optuna.Study:
    """Return the study of rows and reports that were read before; `reports` matter with one objective only."""
    rebuilt = _quiet_study(manifest)
    curves, distributions = curves_of(manifest, reports), manifest.searched()
    for row in merge_repeats(rows):
        if row["status"] != Status.RUNNING:
            rebuilt.add_trial(frozen_trial(row, manifest, distributions, curves.get(row["trial"], {})))
    return rebuilt


def curves_of(manifest: SearchManifest, reports: Iterable[Row]) -> dict[str, dict[int, float]]:
    """Return the first objective by images seen, by trial, as far as reports have it."""
    curves: dict[str, dict[int, float]] = {}
    for report in reports:
        value = report.get(manifest.objectives[0])
        if value is not None:
            curves.setdefault(report["trial"], {})[report["images_seen"]] = value
    return curves


def _quiet_study(manifest: SearchManifest) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        directions = [StudyDirection[direction.upper()] for direction in manifest.directions]
        return optuna.create_study(directions=directions, study_name=manifest.search)
    finally:
        optuna.logging.set_verbosity(verbosity)


def frozen_trial(
    row: Row, manifest: SearchManifest, distributions: Mapping[str, BaseDistribution], curve: Mapping[int, float]
) -> FrozenTrial:
    """Return a trial as Optuna's; `study` describes its states.

    Args:
        row: The latest attempt.
        manifest: The search.
        distributions: Those of all versions of the space.
        curve: The objective by images seen; empty with several objectives.
    """
    asked = {key: value for key, value in distributions.items() if _is_drawn(row, key, value)}
    values = [row[objective] for objective in manifest.objectives]
    known = None not in values
    state = TrialState.FAIL if is_unconfirmed(row) else _STATES[Status(row["status"])]
    if state is TrialState.COMPLETE and not known:
        state = TrialState.FAIL
    has_values = state in (TrialState.COMPLETE, TrialState.PRUNED)
    more = {name: row[name] for name in _MORE if row.get(name) is not None}
    frozen = optuna.trial.create_trial(
        state=state,
        params={key: as_drawn(distribution, row[key]) for key, distribution in asked.items()},
        distributions=asked,
        values=values if known and has_values else None,
        intermediate_values=dict(curve),
        constraints=violations(manifest.constraints, row) if has_values else None,
        user_attrs={name: row[name] for name in _NAMES} | more,
    )
    # Optuna's plots read naive local times.
    frozen.datetime_start = _local(row["started_at"]) or frozen.datetime_start
    if state.is_finished():
        frozen.datetime_complete = _local(row["finished_at"]) or frozen.datetime_complete
    return frozen


def _is_drawn(row: Row, key: str, distribution: BaseDistribution) -> bool:
    """Return whether the trial has a value of `key` that the search could draw; a row may lack its configuration."""
    if not has_key(row, key):
        return False
    if isinstance(distribution, CategoricalDistribution):
        return row[key] in distribution.choices
    return row[key] is not None


def _local(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone().replace(tzinfo=None)
