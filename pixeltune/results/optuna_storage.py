"""The searches of a storage as a storage of Optuna that is only read: for `optuna-dashboard`."""

from __future__ import annotations

import copy
import io
import threading
import time
import warnings
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, NoReturn

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from pixeltune import files
from pixeltune.errors import StoreError, first_line
from pixeltune.files import Location
from pixeltune.results.identity import is_name
from pixeltune.results.live_search import TRIALS_OF_A_STUDY, LiveSearch
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.overview import time_of
from pixeltune.results.store import SearchStore, searches_at
from pixeltune.results.table_folder import StoreWarning, reading

_SECONDS = {False: 2.0, True: 10.0}
"""Time between two looks for new searches, by whether the storage is on object storage."""
_FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
"""Ids of studies are the seconds from here to the beginning of the search: the same at each start, in order of time."""
_METRIC_NAMES = "study:metric_names"
"""The system attribute of `Study.metric_names`."""


class ReadOnlyError(StoreError):
    """Error for an attempt to change results through Optuna."""


class ReadOnlyStorage(BaseStorage):
    """The searches of a storage as studies of Optuna, up to date while they run.

    Trials are those of `pixeltune.results.optuna_study.study`, and running ones. Each method that would change
    something raises ReadOnlyError.

    Args:
        location: A storage, a folder or a URI.
        names: The searches; none for all, also those that begin later.

    Raises:
        StoreError: There is nothing at the location, or one of the named searches cannot be read.
    """

    def __init__(self, location: Location, names: Sequence[str] = ()) -> None:
        self._location = files.require_location(location)
        self._names = tuple(names)
        self._lock = threading.Lock()
        self._searches: dict[str, LiveSearch] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._reported: set[str] = set()
        if names:
            for name in names:
                SearchStore(location, name).manifest()  # a mistyped name is no search that may begin later
            self._look(names)
        else:
            self._look_first()
        self._looked_at = time.monotonic()

    # What is read

    def search(self, study_id: int) -> LiveSearch:
        """Return the search behind a study; KeyError without one, as Optuna expects."""
        for search in self._current():
            if search.study_id == study_id:
                return search
        raise KeyError(f"there is no study {study_id}")

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all searches."""
        return [
            FrozenStudy(
                study_name=search.store.search,
                direction=None,
                directions=search.directions,
                user_attrs=search.user_attrs(),
                system_attrs={_METRIC_NAMES: list(search.manifest.objectives)},
                study_id=search.study_id,
            )
            for search in self._current()
        ]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a search."""
        for search in self._current():
            if search.store.search == study_name:
                return search.study_id
        raise KeyError(f"there is no study {study_name}")

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a search."""
        return self.search(study_id).store.search

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of each objective."""
        return self.search(study_id).directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what is shown of a search."""
        return self.search(study_id).user_attrs()

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the names of the objectives."""
        return {_METRIC_NAMES: list(self.search(study_id).manifest.objectives)}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a search by number."""
        trials = [trial for trial in self.search(study_id).trials() if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial."""
        for trial in self.search(trial_id // TRIALS_OF_A_STUDY).trials():
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(f"there is no trial {trial_id}")

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Return the id of a trial; numbers may have gaps where rows are lost."""
        return self.get_trial(study_id * TRIALS_OF_A_STUDY + trial_number)._trial_id

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the trial that the leaderboard ranks first; without one, the finished trial with the best value."""
        search = self.search(study_id)
        best = search.best() if len(search.directions) == 1 else frozenset()
        found = next((trial for trial in search.trials() if trial._trial_id in best), None)
        return super().get_best_trial(study_id) if found is None else found

    def gallery(self, artifact_id: str) -> str | None:
        """Return the location of a gallery whose trial was read before; None without one."""
        found = (search.gallery(artifact_id) for search in self._current())
        return next((location for location in found if location is not None), None)

    # What would be written

    def _refuse(self, what: str) -> NoReturn:
        raise ReadOnlyError(f"results are only read here, but got a request to {what}; use the commands of pixeltune")

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> NoReturn:
        """Refuse a new study."""
        self._refuse(f"create the study {study_name}")

    def delete_study(self, study_id: int) -> NoReturn:
        """Refuse to delete a study."""
        self._refuse(f"delete study {study_id}")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> NoReturn:
        """Refuse an attribute of a study."""
        self._refuse(f"set {key} of study {study_id}")

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> NoReturn:
        """Refuse an attribute of a study, such as a note."""
        self._refuse(f"set {key} of study {study_id}")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> NoReturn:
        """Refuse a new trial."""
        self._refuse(f"add a trial to study {study_id}")

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> NoReturn:
        """Refuse a value of a trial's key."""
        self._refuse(f"set {param_name} of trial {trial_id}")

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> NoReturn:
        """Refuse a state of a trial."""
        self._refuse(f"set the state of trial {trial_id}")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> NoReturn:
        """Refuse a report of a trial."""
        self._refuse(f"report a value of trial {trial_id}")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> NoReturn:
        """Refuse an attribute of a trial."""
        self._refuse(f"set {key} of trial {trial_id}")

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> NoReturn:
        """Refuse an attribute of a trial."""
        self._refuse(f"set {key} of trial {trial_id}")

    # Which searches there are

    def _current(self) -> list[LiveSearch]:
        with self._lock:
            if time.monotonic() - self._looked_at > _SECONDS[files.is_uri(self._location)]:
                try:
                    self._look(self._folders())
                except StoreError as error:  # the storage does not answer: what is known stays
                    warnings.warn(first_line(error), StoreWarning, stacklevel=2)
                self._looked_at = time.monotonic()
            return sorted(self._searches.values(), key=lambda search: search.study_id)

    def _folders(self) -> list[str]:
        with reading(self._location):
            try:
                names = files.list_folders(self._location)
            except FileNotFoundError:
                return []
        return [name for name in names if name in self._names or not self._names]

    def _look_first(self) -> None:
        """Find all searches, with a warning of every folder that is left out."""
        stores = searches_at(self._location)
        for store in stores:
            if store.folder != files.join(self._location, store.search):
                raise StoreError(
                    f"--storage must be a folder of searches, but {self._location} is the search {store.search}; "
                    "give the folder that it is in"
                )
        known = [store.search for store in stores]
        self._look(known)
        for name in self._folders():
            if name not in known and is_name(name):
                self._report(name, "it has neither search.json nor trials")

    def _look(self, names: Sequence[str]) -> None:
        """Find searches that began, changed or disappeared."""
        for name in [name for name in self._searches if name not in names]:
            del self._searches[name]
        for name in filter(is_name, names):
            try:
                if name in self._searches and self._searches[name].reload():
                    continue
                self._searches.pop(name, None)
                store = SearchStore(self._location, name)
                if store.exists():
                    self._searches[name] = LiveSearch(store, self._study_id)
                elif store.has_trials():
                    self._report(name, "it has trials without their search.json; put a copy of it back")
            except StoreError as error:
                self._searches.pop(name, None)
                self._report(name, first_line(error))

    def _study_id(self, manifest: SearchManifest) -> int:
        """Return the id of a search: the same as before, or one that no other has."""
        key = (manifest.search, manifest.created_at)
        if key not in self._ids:
            began_at = time_of(manifest.created_at) or _FIRST_DAY
            number = max(1, int((began_at - _FIRST_DAY).total_seconds()))
            while number in self._ids.values():
                number += 1
            self._ids[key] = number
        return self._ids[key]

    def _report(self, name: str, why: str) -> None:
        """Say once why a folder is left out."""
        line = f"left out {files.join(self._location, name)}: {why}"
        if line not in self._reported:
            self._reported.add(line)
            warnings.warn(line, StoreWarning, stacklevel=4)


class GalleryStore:
    """The galleries of all searches as Optuna's artifacts, to be read."""

    def __init__(self, storage: ReadOnlyStorage) -> None:
        self._storage = storage

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return the bytes of a gallery; ArtifactNotFound without one."""
        location = self._storage.gallery(artifact_id)
        try:
            if location is not None:
                with reading(location):
                    return io.BytesIO(files.read_whole(location))
        except FileNotFoundError:
            pass
        raise ArtifactNotFound(f"there is no gallery {artifact_id}")

    def write(self, artifact_id: str, content_body: BinaryIO) -> NoReturn:
        """Refuse a new artifact."""
        raise ReadOnlyError(f"results are only read here, but got a request to write the artifact {artifact_id}")

    def remove(self, artifact_id: str) -> NoReturn:
        """Refuse to remove an artifact."""
        raise ReadOnlyError(f"results are only read here, but got a request to remove the artifact {artifact_id}")
