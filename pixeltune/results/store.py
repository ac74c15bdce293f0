"""The results of one search: a folder of Parquet files, one row a trial attempt, one curve an attempt.

    <storage>/<search>/search.json                       what the search is: SearchManifest
    <storage>/<search>/launch.json                       budget and resources of the newest launch
    <storage>/<search>/trials/<trial>-<attempt>.parquet  one row
    <storage>/<search>/curves/<trial>-<attempt>.parquet  a row a report, written whole again at each
    <storage>/<search>/warm_start.parquet                rows of other searches that its sampler was told
    <storage>/<search>/checkpoints/<trial>/              the trial's own affair
    <storage>/<search>/images/<trial>.parquet            of a final run: a row a test image
    <storage>/<search>/samples/<trial>.png               what a trial draws, also <trial>-<N>-images.png
    <storage>/<search>/_corrupt/<table>/                 what could not be read

Every file is made in memory and published in one step, so that a reader never meets half of one. No pandas here:
a launch that finds its search finished says so within seconds.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.lock import holder_of, lock_folder
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.rows import Row, UnreadableError, decode_table, encode, to_rows
from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, SCHEMA_VERSION, TABLE_KEY, TRIAL_SCHEMA

MANIFEST_NAME = "search.json"
_WARM_START_NAME = "warm_start.parquet"
LAUNCH_NAME = "launch.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_SHOWN_DIFFERENCES = 3


class StoreWarning(UserWarning):
    """A file of the results that could not be read and was set aside."""


def trial_name(number: int) -> str:
    """The name of a trial within its search: 7 is 00007."""
    return f"{number:05d}"


class SearchStore:
    """The results of `search` under `storage`, a folder or a URI such as s3://bucket/results.

    folder, trials_folder, curves_folder, images_folder, checkpoints: locations below the storage.
    """

    def __init__(self, storage: str, search: str) -> None:
        if not _NAME.fullmatch(search):
            raise StoreError(f"a search name must be letters, digits and inner . _ + -, but got {search!r}; rename it")
        self.search = search
        self.folder = files.join(str(storage), search)
        self.trials_folder = files.join(self.folder, "trials")
        self.curves_folder = files.join(self.folder, "curves")
        self.images_folder = files.join(self.folder, "images")
        self.checkpoints = files.join(self.folder, "checkpoints")

    @classmethod
    def at(cls, folder: str) -> SearchStore:
        """The store whose folder this is, such as results/digits_quick."""
        text = str(folder)
        head, mark, query = text.partition("?") if files.is_uri(text) else (str(_absolute(text)), "", "")
        storage, _, search = head.rstrip("/").rpartition("/")
        return cls((storage or "/") + mark + query, search)

    def checkpoint(self, trial: str) -> str:
        """The folder in which `trial` keeps its checkpoints."""
        return files.join(self.checkpoints, trial)

    def images(self, trial: str) -> str:
        """The file with the nats of each test image under `trial`, a final run."""
        return files.join(self.images_folder, f"{trial}.parquet")

    def gallery(self, trial: str) -> str:
        """The PNG that shows what `trial` draws at its end."""
        return files.join(self.folder, "samples", f"{trial}.png")

    def exists(self) -> bool:
        """Whether the search was begun here."""
        return _exists(files.join(self.folder, MANIFEST_NAME))

    def has_trials(self) -> bool:
        """Whether any trial has begun here."""
        return bool(self._names(self.trials_folder))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the search for this launch; a second launch gets a StoreError that names this one."""
        return lock_folder(self.folder)

    def holder(self) -> dict[str, Any] | None:
        """The launch that works on the search now, with `pid` and `host` where they are known; None without one."""
        with _reading(self.folder):
            return holder_of(self.folder)

    def write_launch(self, launch: Mapping[str, Any]) -> None:
        """What another shell may want to know of this launch: `started_at`, `budget`, `resources` and the like."""
        self._write(files.join(self.folder, LAUNCH_NAME), (json.dumps(launch, indent=2) + "\n").encode())

    def launch(self) -> dict[str, Any]:
        """What the newest launch said of itself; empty where there was none, or where it cannot be read."""
        try:
            tree = json.loads(self._bytes(files.join(self.folder, LAUNCH_NAME)))
        except (FileNotFoundError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def open(self, manifest: SearchManifest) -> SearchManifest:
        """Begin the search, or make sure that the one begun here is the same; returns the manifest as first written.

        A search without a trial yet, such as one that found no cluster, begins anew with other settings.

        The storage is written to, so that a full or read-only disk shows before anything is trained.
        """
        if not self.exists():
            if self.has_trials():
                raise StoreError(
                    f"a search with results must have its {MANIFEST_NAME}, but {self.folder} has none; "
                    "put it back, or take another name or --storage"
                )
            self._write(files.join(self.folder, MANIFEST_NAME), manifest.to_json().encode())
            return manifest
        known = self.manifest()
        if not self.has_trials():
            self._write(files.join(self.folder, MANIFEST_NAME), manifest.to_json().encode())
            return manifest
        self._require_same(manifest, known)
        probe = files.join(self.folder, ".writable")
        self._write(probe, b"")
        files.remove(probe)
        return known

    def manifest(self) -> SearchManifest:
        """What `open` wrote when the search began."""
        location = files.join(self.folder, MANIFEST_NAME)
        try:
            return SearchManifest.from_json(self._bytes(location))
        except FileNotFoundError:
            raise StoreError(f"a search must have been begun to be read, but {location} does not exist") from None
        except StoreError as error:
            raise StoreError(f"{error} (in {self.folder}); put it right, or take another name or --storage") from None

    def write_trial(self, row: Mapping[str, Any]) -> None:
        """Publish the row of one attempt, in place of an earlier state of it. Columns left out are null."""
        complete = self._complete(row)
        content = encode([complete], TRIAL_SCHEMA)
        self._write(files.join(self.trials_folder, _file_name(row["trial"], row["attempt"])), content)

    def write_curve(self, trial: str, attempt: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Publish the curve of one attempt so far, a row a report, in place of a shorter one."""
        content = encode([self._complete({**row, "trial": trial, "attempt": attempt}) for row in rows], CURVE_SCHEMA)
        self._write(files.join(self.curves_folder, _file_name(trial, attempt)), content)

    def write_warm_start(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows of other searches as they are now, in place of any that were kept; no file where there are none."""
        location = files.join(self.folder, _WARM_START_NAME)
        if rows:
            self._write(location, encode(rows, TRIAL_SCHEMA))
        else:
            files.remove(location)

    def warm_start(self) -> list[Row]:
        """The rows of other searches that were kept when this one began; none where it began alone."""
        location = files.join(self.folder, _WARM_START_NAME)
        try:
            return to_rows(decode_table(self._bytes(location), TRIAL_SCHEMA))
        except FileNotFoundError:
            return []
        except UnreadableError as error:
            raise StoreError(f"the rows of a warm start must be readable, but {location} is not ({error})") from None

    def trials(self) -> list[Row]:
        """The latest attempt of each trial, by number."""
        latest = {row["trial"]: row for row in sorted(self.attempts(), key=lambda row: row["attempt"])}
        return sorted(latest.values(), key=_by_number)

    def attempts(self) -> list[Row]:
        """The rows of all attempts, by number and attempt."""
        return sorted(to_rows(self.attempts_table()), key=lambda row: (*_by_number(row), row["attempt"]))

    def curve(self, trial: str) -> list[Row]:
        """The reports of one trial by images seen; where attempts overlap, the later one counts."""
        names = [name for name in self._names(self.curves_folder) if name.startswith(f"{trial}-")]
        return merge_attempts(to_rows(self._table(self.curves_folder, names, CURVE_SCHEMA)))

    def curves(self) -> list[Row]:
        """The reports of all trials, merged as `curve` does."""
        return merge_attempts(to_rows(self.curves_table()))

    def attempts_table(self) -> pa.Table:
        """The rows of all attempts as Arrow, unsorted."""
        return self._table(self.trials_folder, self._names(self.trials_folder), TRIAL_SCHEMA)

    def curves_table(self) -> pa.Table:
        """The reports of all attempts as Arrow, unsorted and not merged."""
        return self._table(self.curves_folder, self._names(self.curves_folder), CURVE_SCHEMA)

    def images_table(self) -> pa.Table:
        """The nats of each test image under all final runs as Arrow, unsorted."""
        return self._table(self.images_folder, self._names(self.images_folder), IMAGE_SCHEMA)

    def _complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        complete = {**row, "schema_version": SCHEMA_VERSION, "search": row.get("search", self.search)}
        if complete["search"] != self.search:
            raise StoreError(f"`search` must be {self.search} in its own results, but got {complete['search']!r}")
        _require_name(row.get("trial"), row.get("attempt"))
        return complete

    def _write(self, location: str, content: bytes) -> None:
        try:
            files.write_whole(location, content)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"results must be writable, but {location} is not ({_reason(error)}); free or mount the disk, "
                "or take another --storage"
            ) from error

    def _table(self, folder: str, names: Iterable[str], schema: pa.Schema) -> pa.Table:
        tables, unreadable = [pa.Table.from_batches([], schema)], {}
        for name in names:
            try:
                tables.append(decode_table(self._bytes(files.join(folder, name)), schema))
            except UnreadableError as error:
                unreadable[name] = str(error)
            except FileNotFoundError:  # Set aside by another reader since the folder was listed.
                continue
        if unreadable:
            self._set_aside(folder, unreadable, schema.metadata[TABLE_KEY].decode())
        return pa.concat_tables(tables)

    def _names(self, folder: str) -> list[str]:
        with _reading(folder):
            return files.list_names(folder, ".parquet")

    def _bytes(self, location: str) -> bytes:
        with _reading(location):
            return files.read_whole(location)

    def _set_aside(self, folder: str, unreadable: Mapping[str, str], table: str) -> None:
        corrupt = files.join(self.folder, "_corrupt", table)
        try:
            for name in unreadable:
                files.move(files.join(folder, name), files.join(corrupt, name))
            whither = f"moved to {corrupt}"
        except OSError as error:
            whither = f"still there, since {corrupt} cannot be written ({_reason(error)})"
        first, why = next(iter(unreadable.items()))
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        warnings.warn(f"left out {first}{more} of {folder}: {why}; {whither}", StoreWarning, stacklevel=4)

    @staticmethod
    def _require_same(manifest: SearchManifest, known: SearchManifest) -> None:
        lines = manifest.difference(known)
        if lines:
            more = f" and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
            raise StoreError(
                f"results must go on with the settings they began with, but got {'; '.join(lines[:_SHOWN_DIFFERENCES])}"
                f"{more}; launch with the same settings, or under another name or --storage"
            )


def find_searches(location: str) -> list[SearchStore]:
    """The search whose folder `location` is, or all searches in the storage `location`."""
    location = str(location)
    if not _exists(location):
        raise StoreError(f"results must be a search folder or a storage of some, but there is nothing at {location}")
    if any(_exists(files.join(location, name)) for name in (MANIFEST_NAME, "trials", "curves")):
        return [SearchStore.at(location)]
    with _reading(location):
        stores = [SearchStore(location, name) for name in _folder_names(location) if _NAME.fullmatch(name)]
    found = [store for store in stores if store.exists() or _exists(store.trials_folder)]
    if not found:
        raise StoreError(f"results must be a search folder or a storage of some, but {location} holds no search")
    return found


def merge_attempts(rows: Iterable[Row]) -> list[Row]:
    """One row for each trial and number of images seen, the latest attempt's, in order of both."""
    latest = {(row["trial"], row["images_seen"]): row for row in sorted(rows, key=lambda row: row["attempt"])}
    return sorted(latest.values(), key=lambda row: (row["trial"], row["images_seen"]))


def _folder_names(location: str) -> list[str]:
    if not files.is_uri(location):
        return sorted(entry.name for entry in files.local_path(location).iterdir() if entry.is_dir())
    from pyarrow import fs

    filesystem, path = fs.FileSystem.from_uri(location)
    infos = filesystem.get_file_info(fs.FileSelector(path))
    return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)


def _exists(location: str) -> bool:
    with _reading(location):
        return files.exists(location)


@contextmanager
def _reading(location: str) -> Iterator[None]:
    """Turn what object storage or a disk answers into one line; a file that is not there is the caller's affair."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"results must be readable, but {location} is not ({_reason(error)})") from error


def _absolute(path: str) -> Path:
    return files.local_path(path).resolve()


def _by_number(row: Row) -> tuple[float, str]:
    return (float("inf") if row["number"] is None else row["number"]), row["trial"]


def _file_name(trial: str, attempt: int) -> str:
    return f"{trial}-{attempt}.parquet"


def _require_name(trial: object, attempt: object) -> None:
    if not isinstance(trial, str) or not trial.isalnum() or not trial.isascii():
        raise StoreError(f"`trial` must be letters and digits such as 00007, but got {trial!r}")
    if not isinstance(attempt, int) or attempt < 1:
        raise StoreError(f"`attempt` must be an integer from 1, but got {attempt!r}")


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
