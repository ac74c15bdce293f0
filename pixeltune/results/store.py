"""The results of one search: a folder of Parquet files, one row a trial attempt, one curve an attempt.

    <storage>/<search>/search.json                       what the search is: SearchManifest
    <storage>/<search>/launch.json                       budget and resources of the newest launch
    <storage>/<search>/trials/<trial>-<attempt>.parquet  one row
    <storage>/<search>/curves/<trial>-<attempt>.parquet  a row a report, written whole again at each
    <storage>/<search>/{trials,curves}/compacted-<n>.parquet  many attempts, merged: `tables`, `compaction`
    <storage>/<search>/warm_start.parquet                rows of other searches that were reported to its sampler
    <storage>/<search>/checkpoints/<trial>/              written and read by the trial itself
    <storage>/<search>/images/<trial>.parquet            of a final run: a row a test image
    <storage>/<search>/samples/<trial>.png               what a trial draws, also <trial>-<N>-images.png
    <storage>/<search>/{tensorboard,wandb}/              what trackers keep: events by trial, and what runs have logged
    <storage>/<search>/requests/                         requests to stop, until they are honoured: `stop_requests`
    <storage>/<search>/_corrupt/<table>/                 what could not be read

Every file is made in memory and published in one step, so that a reader never sees half of one. No pandas here:
a launch that finds its search finished says so within seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from pixeltune import digest, files
from pixeltune.config import Scalar
from pixeltune.errors import StoreError
from pixeltune.results.extension import extended, obstacles
from pixeltune.results.identity import (
    LAUNCH_NAME,
    MANIFEST_NAME,
    PROGRESS_NAME,
    WARM_START_NAME,
    is_name,
    report_copies,
    require_name,
    require_new_name,
    under_folder_name,
)
from pixeltune.results.lock import holder_of, lock_folder, require_held
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row, UnreadableError, decode_table, encode, to_rows
from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, SCHEMA_VERSION, TABLE_KEY, TRIAL_SCHEMA
from pixeltune.results.table_folder import COMPACTED, StoreWarning, TableFolder, publish, reading

_SHOWN_DIFFERENCES = 3


def trial_name(number: int) -> str:
    """Return the name of a trial within its search: 7 is 00007."""
    return f"{number:05d}"


class SearchStore:
    """The results of `search` under `storage`, a folder or a URI such as s3://bucket/results.

    Attributes:
        folder, trials_folder, curves_folder, images_folder, samples_folder, checkpoints: Locations below the storage.
        trial_files, curve_files, image_files: The tables in them.
    """

    def __init__(self, storage: files.Location, search: str) -> None:
        require_name(search)
        location = files.require_location(storage)
        self.search = search
        self.folder = files.join(location, search)
        self.trials_folder = files.join(self.folder, "trials")
        self.curves_folder = files.join(self.folder, "curves")
        self.images_folder = files.join(self.folder, "images")
        self.samples_folder = files.join(self.folder, "samples")
        self.checkpoints = files.join(self.folder, "checkpoints")
        self.trial_files = self._table(self.trials_folder, TRIAL_SCHEMA)
        self.curve_files = self._table(self.curves_folder, CURVE_SCHEMA)
        self.image_files = self._table(self.images_folder, IMAGE_SCHEMA, is_by_trial=True)
        self._search_id: str | None = None

    @classmethod
    def at(cls, folder: files.Location) -> SearchStore:
        """Return the store of this folder, such as results/digits_quick."""
        text = files.require_location(folder)
        head, mark, query = text.partition("?") if files.is_uri(text) else (files.absolute(text), "", "")
        storage, _, search = head.rstrip("/").rpartition("/")
        return cls((storage or "/") + mark + query, search)

    def checkpoint(self, trial: str) -> str:
        """Return the folder in which `trial` keeps its checkpoints."""
        return files.join(self.checkpoints, trial)

    def images(self, trial: str) -> str:
        """Return the file with the nats of each test image under `trial`, a final run."""
        return files.join(self.images_folder, f"{trial}.parquet")

    def gallery(self, trial: str) -> str:
        """Return the PNG that shows the samples of `trial` at its end."""
        return files.join(self.samples_folder, f"{trial}.png")

    @property
    def search_id(self) -> str | None:
        """Return the id of the search; "" if it began before searches had ids, None if search.json is unreadable."""
        if self._search_id is None:
            with suppress(FileNotFoundError, ValueError, StoreError):
                tree = digest.open_json(_bytes(files.join(self.folder, MANIFEST_NAME)))
                self._search_id = str(tree.get("id", "")) if isinstance(tree, dict) else None
        return self._search_id

    def exists(self) -> bool:
        """Return whether the search was begun here."""
        return _exists(files.join(self.folder, MANIFEST_NAME))

    def has_trials(self) -> bool:
        """Return whether any trial has begun here."""
        return bool(self.trial_files.names())

    def lock(self) -> AbstractContextManager[None]:
        """Hold the search for this launch; a second launch gets a StoreError that names this one."""
        return lock_folder(self.folder)

    def holder(self) -> dict[str, Any] | None:
        """Return the launch that works on the search now, with `pid` and `host` if known; None without one."""
        with reading(self.folder):
            return holder_of(self.folder)

    def write_launch(self, launch: Mapping[str, Any]) -> None:
        """Write facts about this launch for other shells: `started_at`, `budget`, `resources` and the like."""
        publish(files.join(self.folder, LAUNCH_NAME), digest.seal_json(launch))

    def launch(self) -> dict[str, Any]:
        """Return the facts that the newest launch wrote; empty where there are none, or where they cannot be read."""
        try:
            tree = digest.open_json(_bytes(files.join(self.folder, LAUNCH_NAME)))
        except (FileNotFoundError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def write_progress(self, progress: Mapping[str, Mapping[str, Any]]) -> None:
        """Write where running trials are between two reports, for other shells; a display needs it, no result does."""
        content = {trial: {**each, "reported_at": each["reported_at"].isoformat()} for trial, each in progress.items()}
        publish(files.join(self.folder, PROGRESS_NAME), digest.seal_json(content))

    def progress(self) -> dict[str, dict[str, Any]]:
        """Return what `write_progress` wrote last, by trial; empty where there is nothing, or nothing readable."""
        try:
            tree = digest.open_json(_bytes(files.join(self.folder, PROGRESS_NAME)))
            return {
                trial: each | {"reported_at": datetime.fromisoformat(each["reported_at"])}
                for trial, each in tree.items()
            }
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def open(self, manifest: SearchManifest, *, extend: bool = False) -> SearchManifest:
        """Begin the search, or check that the one begun here is the same; return the manifest that is stored.

        A search without a trial, such as one that found no cluster, begins again with the new settings.

        extend: whether the space may differ, if that is an extension; it is then stored as the newest version.

        The storage is written to, so that a full or read-only disk is detected before anything is trained.
        """
        if not self.exists():
            if self.has_trials():
                raise StoreError(
                    f"a search with results must have its {MANIFEST_NAME}, but {self.folder} has none; "
                    "put it back, or take another name or --storage"
                )
            require_new_name(self.search)
            return self._begin(manifest)
        known = self.manifest()
        if not self.has_trials():  # files of it that remain, such as curves, carry its id
            return self._begin(replace(manifest, id=known.id or manifest.id))
        lines = manifest.difference(known)
        if lines:
            self._require_extension(lines, manifest, known, extend=extend)
        self.trial_files.require_known()
        self.curve_files.require_known(is_compacted_alone=True)
        probe = files.join(self.folder, ".writable")
        publish(probe, b"")
        files.remove(probe)
        if lines:
            require_held(self.folder)
            known = extended(manifest, known)
            publish(files.join(self.folder, MANIFEST_NAME), known.to_json().encode())
        return known

    def add_first(self, manifest: SearchManifest, given: Sequence[Mapping[str, Scalar]]) -> SearchManifest:
        """Add first configurations that the search does not have yet, for this launch and later ones.

        Args:
            manifest: The manifest that is stored.
            given: First configurations with the values of all varied keys.

        Returns:
            The manifest as it is stored now.
        """
        new = [dict(each) for each in given if each not in manifest.first]
        if not new:
            return manifest
        require_held(self.folder)
        manifest = replace(manifest, first=(*manifest.first, *new))
        publish(files.join(self.folder, MANIFEST_NAME), manifest.to_json().encode())
        return manifest

    def _begin(self, manifest: SearchManifest) -> SearchManifest:
        publish(files.join(self.folder, MANIFEST_NAME), manifest.to_json().encode())
        self._search_id = manifest.id
        return manifest

    def manifest(self) -> SearchManifest:
        """Return what `open` wrote when the search began, under the name that its folder has now."""
        location = files.join(self.folder, MANIFEST_NAME)
        try:
            return replace(SearchManifest.from_json(_bytes(location)), search=self.search)
        except FileNotFoundError:
            raise StoreError(f"a search must have been begun to be read, but {location} does not exist") from None
        except StoreError as error:
            raise StoreError(f"{error} (in {self.folder}); put it right, or take another name or --storage") from None

    def write_trial(self, row: Mapping[str, Any]) -> None:
        """Publish the row of one attempt, in place of an earlier state of it. Columns left out are null."""
        complete = self._complete(row)
        self.trial_files.write(row["trial"], row["attempt"], [complete])

    def write_curve(self, trial: str, attempt: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Publish the curve of one attempt so far, a row a report, in place of a shorter one."""
        complete = [self._complete({**row, "trial": trial, "attempt": attempt}) for row in rows]
        self.curve_files.write(trial, attempt, complete)

    def clear_curve(self, trial: str) -> None:
        """Remove the reports of all attempts of `trial`."""
        table = self.curve_files.read(trial=trial, columns=("trial", "attempt"))
        for attempt in set(table["attempt"].to_pylist()):
            self.write_curve(trial, attempt, [])

    def write_warm_start(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows of other searches as they are now, replacing any stored before; no file where there are none."""
        location = files.join(self.folder, WARM_START_NAME)
        if rows:
            publish(location, encode(rows, TRIAL_SCHEMA))
        else:
            files.remove(location)

    def warm_start(self) -> list[Row]:
        """Return the rows of other searches that were stored when this one began; none without a warm start."""
        location = files.join(self.folder, WARM_START_NAME)
        try:
            return to_rows(decode_table(_bytes(location), TRIAL_SCHEMA))
        except FileNotFoundError:
            return []
        except UnreadableError as error:
            raise StoreError(
                f"the rows of a warm start must be readable, but {location} is not ({error}); put a copy of it back, "
                "or start the search under another name"
            ) from None

    def trials(self) -> list[Row]:
        """Return the latest attempt of each trial, by number."""
        return latest_attempts(self.attempts())

    def attempts(self) -> list[Row]:
        """Return the rows of all attempts, by number and attempt."""
        return sorted(to_rows(self.read(self.trial_files)), key=lambda row: (*_by_number(row), row["attempt"]))

    def curve(self, trial: str) -> list[Row]:
        """Return the reports of one trial by images seen; where attempts overlap, the later one counts."""
        return merge_attempts(to_rows(self.read(self.curve_files, trial=trial)))

    def curves(self) -> list[Row]:
        """Return the reports of all trials, merged as `curve` does."""
        return merge_attempts(to_rows(self.read(self.curve_files)))

    def read(self, table: TableFolder, *, trial: str | None = None, dictionaries: Collection[str] = ()) -> pa.Table:
        """Return the rows of one of its tables as `TableFolder.read` does, under the name of the folder.

        Rows that carry the id of another search are reported with a StoreWarning, and returned too.
        """
        return under_folder_name(table.read(trial=trial, dictionaries=dictionaries), self.search, self.search_id)

    def _table(self, folder: str, schema: pa.Schema, *, is_by_trial: bool = False) -> TableFolder:
        corrupt = files.join(self.folder, "_corrupt", schema.metadata[TABLE_KEY].decode())
        return TableFolder(folder, corrupt, schema, is_by_trial)

    def _complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        require_held(self.folder)
        own = {"schema_version": SCHEMA_VERSION, "search": row.get("search", self.search)}
        complete = {**row, **own, "search_id": self.search_id or None}
        if complete["search"] != self.search:
            raise StoreError(f"`search` must be {self.search} in its own results, but got {complete['search']!r}")
        _require_name(row.get("trial"), row.get("attempt"))
        return complete

    @staticmethod
    def _require_extension(
        lines: Sequence[str], manifest: SearchManifest, known: SearchManifest, *, extend: bool
    ) -> None:
        """Refuse other settings: all of them without `extend`, and with it those that are no extension."""
        reasons = obstacles(manifest, known)
        if not extend:
            also = "" if reasons else "with --extend to go on with the changed space, "
            raise StoreError(
                f"results must go on with the settings they began with, but got {_few(lines)}; launch with the same "
                f"settings, {also}or under another name or --storage"
            )
        if reasons:
            raise StoreError(
                "an extension may widen ranges, add choices, vary keys from their base value on and fix varied keys, "
                f"but got {_few(reasons)}; put the rest back as it was, or launch under another name or --storage"
            )


def _few(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
    return f"{'; '.join(lines[:_SHOWN_DIFFERENCES])}{more}"


def find_searches(location: files.Location) -> list[SearchStore]:
    """Return the search whose folder `location` is, or all searches in the storage `location`; there must be one."""
    found = searches_at(location)
    if not found:
        raise StoreError(f"results must be a search folder or a storage of some, but {location} holds no search")
    return found


def searches_at(location: files.Location) -> list[SearchStore]:
    """Return the same, and none of a storage that holds none; StoreError where there is nothing."""
    location = files.require_location(location)
    if not _exists(location):
        raise StoreError(f"results must be a search folder or a storage of some, but there is nothing at {location}")
    if _is_search(location):
        return [SearchStore.at(location)]
    with reading(location):
        names = files.list_folders(location)
    _report_unusable(location, names)
    stores = [SearchStore(location, name) for name in names if is_name(name)]
    found = [store for store in stores if store.exists() or _exists(store.trials_folder)]
    if len(found) > 1:
        report_copies((store.folder, store.search_id) for store in found)
    return found


def _is_search(location: str) -> bool:
    """Return whether a folder is one search's own: in a storage, `trials` may be a search, or an empty folder."""
    with reading(location):
        if any(files.list_names(files.join(location, name), ".parquet") for name in ("trials", "curves")):
            return True
        if not _exists(files.join(location, MANIFEST_NAME)):
            return False
        return not any(_exists(files.join(location, name, MANIFEST_NAME)) for name in files.list_folders(location))


def _report_unusable(location: str, names: Sequence[str]) -> None:
    """Warn of searches whose folder has a name that no search can have, such as `tiny (copy)`."""
    for name in names:
        if not is_name(name) and name[0] not in "._" and _exists(files.join(location, name, MANIFEST_NAME)):
            warnings.warn(
                f"left out {files.join(location, name)}: a search name must be letters, digits and inner . _ + -; "
                "rename the folder",
                StoreWarning,
                stacklevel=4,
            )


def latest_attempts(rows: Iterable[Row]) -> list[Row]:
    """Return the latest attempt of each trial, by number."""
    latest = {row["trial"]: row for row in sorted(rows, key=lambda row: row["attempt"])}
    return sorted(latest.values(), key=_by_number)


def without_continuations(attempts: Sequence[Row], reports: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the attempts and the reports of a search itself, without those that `pixeltune continue` has added."""
    added = {(row["trial"], row["attempt"]) for row in attempts if row["continues_attempt"] is not None}
    return (
        [row for row in attempts if (row["trial"], row["attempt"]) not in added],
        [report for report in reports if (report["trial"], report["attempt"]) not in added],
    )


def merge_attempts(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each trial and number of images seen, the latest attempt's, in order of both."""
    latest = {(row["trial"], row["images_seen"]): row for row in sorted(rows, key=lambda row: row["attempt"])}
    return sorted(latest.values(), key=lambda row: (row["trial"], row["images_seen"]))


def _bytes(location: str) -> bytes:
    with reading(location):
        return files.read_whole(location)


def _exists(location: str) -> bool:
    with reading(location):
        return files.exists(location)


def _by_number(row: Row) -> tuple[float, str]:
    return (float("inf") if row["number"] is None else row["number"]), row["trial"]


def _require_name(trial: object, attempt: object) -> None:
    if not isinstance(trial, str) or not trial.isalnum() or not trial.isascii() or trial == COMPACTED:
        raise StoreError(f"`trial` must be letters and digits such as 00007, but got {trial!r}")
    if not isinstance(attempt, int) or attempt < 1:
        raise StoreError(f"`attempt` must be an integer from 1, but got {attempt!r}")
