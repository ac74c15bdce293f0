"""One search as Optuna's trials, kept up to date while it runs; nothing is written."""

from __future__ import annotations

import json
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pixeltune import files
from pixeltune.errors import StoreError, first_line
from pixeltune.results.identity import MANIFEST_NAME, under_folder_name
from pixeltune.results.live_table import LiveTable
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.optuna_study import curves_of, frozen_trial
from pixeltune.results.overview import kind_of
from pixeltune.results.parquet_io import Row, to_rows
from pixeltune.results.ranking import best_row, pareto_front
from pixeltune.results.repeats import merge_repeats
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore, latest_attempts, merge_attempts
from pixeltune.results.table_folder import StoreWarning, reading
from pixeltune.space.metrics import not_met

TRIALS_OF_A_STUDY = 1 << 20
"""Ids of trials are those of their study times this, plus their number."""

_SECONDS = {False: 1.0, True: 5.0}
"""Time between two looks at the files, by whether they are on object storage."""
_HOLDER_SECONDS = {False: 2.0, True: 60.0}
_ARTIFACTS = uuid.UUID("6f0c1f5e-2a57-4f5b-9f0e-3d1c2b7a9e48")


@dataclass(frozen=True)
class GalleryArtifact:
    """A picture of what a trial draws.

    Attributes:
        artifact_id: Its id, the same at each start.
        name: The name of its file in the folder of samples.
    """

    artifact_id: str
    name: str


class LiveSearch:
    """A search as a study of Optuna. Its methods may be called from several threads.

    Attributes:
        store: Where it is stored.
        study_id: Its number for Optuna.
        manifest: What the search is; of the last `reload`.
    """

    def __init__(self, store: SearchStore, id_of: Callable[[SearchManifest], int]) -> None:
        self.store = store
        self._manifest_stamp = _stamp(store)
        self.manifest = store.manifest()
        self.study_id = id_of(self.manifest)
        self._is_remote = files.is_uri(store.folder)
        self._lock = threading.Lock()
        self._looked_at = self._asked_at = -float("inf")
        self._is_running, self._is_stale = False, True
        self._tables = {"trials": LiveTable(store.trial_files), "curves": LiveTable(store.curve_files)}
        self._samples: Sequence[str] = ()
        self._trials: Sequence[FrozenTrial] = ()
        self._kept: dict[str, tuple[object, FrozenTrial]] = {}
        self._best: frozenset[int] = frozenset()
        self._galleries: dict[str, GalleryArtifact] = {}

    @property
    def directions(self) -> list[StudyDirection]:
        """Return the direction of each objective."""
        return [StudyDirection[direction.upper()] for direction in self.manifest.directions]

    def reload(self) -> bool:
        """Read search.json again if it changed, as when first configurations were added.

        Returns:
            Whether it is the same search; one that began again under this name is another.

        Raises:
            StoreError: It cannot be read.
        """
        stamp = _stamp(self.store)
        if stamp is None:
            return False
        if stamp != self._manifest_stamp:
            manifest = self.store.manifest()
            if (manifest.id, manifest.created_at) != (self.manifest.id, self.manifest.created_at):
                return False
            with self._lock:
                self.manifest, self._manifest_stamp = manifest, stamp
                self._looked_at, self._is_stale, self._kept = -float("inf"), True, {}
        return True

    def user_attrs(self) -> dict[str, Any]:
        """Return what is shown of the whole search."""
        manifest = self.manifest
        attributes = {
            "kind": kind_of(manifest),
            "status": "running" if self._runs() else "not running",
            "data": manifest.base.get("data.name"),
            "sampler": manifest.sampler,
            "constraints": dict(manifest.constraints) or None,
            "baseline_bits_per_dim": manifest.baseline_bits_per_dim,
            "began_at": manifest.created_at,
            "folder": self.store.folder,
        }
        return {name: value for name, value in attributes.items() if value is not None}

    def trials(self) -> Sequence[FrozenTrial]:
        """Return the trials by number; those that were known before where the storage does not answer."""
        with self._lock:
            self._look()
            return self._trials

    def best(self) -> frozenset[int]:
        """Return the ids of the best trial, or of the trials on the front; none of a final.

        The test set chooses no trial.
        """
        with self._lock:
            self._look()
            return self._best

    def gallery(self, artifact_id: str) -> str | None:
        """Return the location of a gallery; None where no trial that was read has one of this id."""
        with self._lock:
            found = self._galleries.get(artifact_id)
        return None if found is None else files.join(self.store.samples_folder, found.name)

    def _runs(self) -> bool:
        if time.monotonic() - self._asked_at > _HOLDER_SECONDS[self._is_remote]:
            try:
                self._is_running = self.store.holder() is not None
            except StoreError as error:
                warnings.warn(first_line(error), StoreWarning, stacklevel=2)
            self._asked_at = time.monotonic()
        return self._is_running

    def _look(self) -> None:
        """Bring the trials up to date, unless that was done just now."""
        if time.monotonic() - self._looked_at < _SECONDS[self._is_remote]:
            return
        try:
            for name, table in self._tables.items():
                if name == "trials" or self._has_curves:
                    self._is_stale |= table.refresh()
            with reading(self.store.samples_folder):
                samples = [*files.stamps(self.store.samples_folder, ".png")]
            if self._is_stale or samples != self._samples:
                self._samples = samples
                self._rebuild()
                self._is_stale = False
        except StoreError as error:
            warnings.warn(first_line(error), StoreWarning, stacklevel=2)
        self._looked_at = time.monotonic()

    @property
    def _has_curves(self) -> bool:
        return len(self.manifest.objectives) == 1

    def _rebuild(self) -> None:
        rows = merge_repeats(latest_attempts(self._rows("trials")))
        reports = merge_attempts(self._rows("curves")) if self._has_curves else []
        curves, galleries = curves_of(self.manifest, reports), self._find_galleries()
        distributions = self.manifest.searched()
        kept: dict[str, tuple[object, FrozenTrial]] = {}
        trials = []
        for number, row in zip(_numbers(rows), rows, strict=True):
            name = row["trial"]
            made_of = (number, row, curves.get(name, {}), galleries.get(name, []))
            known = self._kept.get(name)
            if known is not None and known[0] == made_of:
                kept[name] = known
            else:
                trial = frozen_trial(row, self.manifest, distributions, made_of[2])
                self._complete(trial, number, row, made_of[3])
                kept[name] = (made_of, trial)
            trials.append(kept[name][1])
        best = {row["trial"] for row in self._best_rows(rows)}
        self._kept, self._trials = kept, trials
        self._best = frozenset(trial._trial_id for name, (_, trial) in kept.items() if name in best)
        self._galleries = {each.artifact_id: each for found in galleries.values() for each in found}

    def _rows(self, name: str) -> list[Row]:
        table = self._tables[name].table()
        return to_rows(under_folder_name(table, self.store.search, self.store.search_id))

    def _complete(self, trial: FrozenTrial, number: int, row: Row, galleries: Sequence[GalleryArtifact]) -> None:
        """Number a trial, and add what the dashboard reads from system attributes."""
        trial.number = number
        trial._trial_id = self.study_id * TRIALS_OF_A_STUDY + number
        if self.manifest.constraints and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            # The dashboard knows only the older form. A bound that a finished trial is not known to keep is not kept.
            beyond = list(trial.constraints.values())
            is_unknown = bool(not_met(self.manifest.constraints, row)) and all(value <= 0 for value in beyond)
            trial.system_attrs["constraints"] = [*beyond, *([1.0] if is_unknown else [])]
        for gallery in galleries:
            trial.system_attrs[f"artifacts:{gallery.artifact_id}"] = json.dumps(
                {
                    "artifact_id": gallery.artifact_id,
                    "filename": gallery.name,
                    "mimetype": "image/png",
                    "encoding": None,
                }
            )

    def _best_rows(self, rows: Sequence[Row]) -> Sequence[Row]:
        manifest = self.manifest
        if manifest.final is not None:
            return []
        ended = [row for row in rows if row["status"] != Status.RUNNING]
        if self._has_curves:
            best = best_row(ended, manifest.objectives[0], manifest.constraints)
            return [] if best is None else [best]
        try:
            return pareto_front(ended, manifest.objectives, manifest.constraints)
        except StoreError as error:  # rows of different images
            warnings.warn(f"{self.store.search}: {first_line(error)}", StoreWarning, stacklevel=2)
            return []

    def _find_galleries(self) -> Mapping[str, list[GalleryArtifact]]:
        """Return the galleries of each trial, the one at its end first."""
        found: dict[str, list[GalleryArtifact]] = {}
        for name in sorted(self._samples, key=lambda name: ("-" in name, len(name), name)):
            artifact_id = str(uuid.uuid5(_ARTIFACTS, f"{self.study_id}/{name}"))
            found.setdefault(name.removesuffix(".png").partition("-")[0], []).append(GalleryArtifact(artifact_id, name))
        return found


def _numbers(rows: Sequence[Row]) -> list[int]:
    """Return the number of each trial; where rows lack them or share them, its place."""
    numbers = [row["number"] for row in rows]
    is_usable = all(isinstance(number, int) and 0 <= number < TRIALS_OF_A_STUDY for number in numbers)
    return numbers if is_usable and len(set(numbers)) == len(numbers) else [*range(len(rows))]


def _stamp(store: SearchStore) -> float | None:
    with reading(store.folder):
        return files.modified_at(files.join(store.folder, MANIFEST_NAME))
