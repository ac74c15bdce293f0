"""One table of a search: a folder with one file an attempt, and compacted files that hold many attempts.

    <trial>-<attempt>.parquet    one attempt, as its launch wrote it
    compacted-<n>.parquet        many attempts, merged by `pixeltune.results.compaction`

An attempt may be stored in several of them when a compaction was killed, or a file was written after it. It counts
once: a file of its own takes precedence over compacted ones, and among these the one with the highest number does.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pixeltune import files
from pixeltune.errors import StoreError, first_line
from pixeltune.results.parquet_io import (
    DICTIONARY_COLUMNS,
    NewerError,
    TableFile,
    UnreadableError,
    encode,
    text_array,
    view_of,
)

COMPACTED = "compacted"
"""The beginning of the names of compacted files; no trial may have this name."""

_COMPACTED_NAME = re.compile(rf"{COMPACTED}-([0-9]+)\.parquet")
_ATTEMPT_NAME = re.compile(r"([A-Za-z0-9]+-[0-9]+)\.parquet")
_BLOCK = 250
"""Number of single rows that are joined at a time: a table of one row in 100 columns takes 100 times the memory."""
_MOST_LOOKS = 20
_ASKED_FOR = 256
"""Number of files of object storage that may be in memory before they are decoded."""


class StoreWarning(UserWarning):
    """Warning about a file of the results that could not be read."""


@dataclass(frozen=True)
class Health:
    """Files of a table.

    Attributes:
        damaged: Files that exist and cannot be read.
        quarantined: Files that were moved away because they were damaged.
        without_digest: Files of earlier versions, in which damage may not be detected.
    """

    files: int = 0
    without_digest: int = 0
    damaged: int = 0
    quarantined: int = 0

    def __add__(self, other: Health) -> Health:
        return Health(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class TableFolder:
    """The files of one table.

    Attributes:
        corrupt: The folder to which unreadable files are moved.
        is_by_trial: Whether a trial has one file for all its attempts.
    """

    folder: str
    corrupt: str
    schema: pa.Schema
    is_by_trial: bool = False

    def path(self, name: str) -> str:
        """Return the location of the file of this name."""
        return files.join(self.folder, name)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        with reading(self.folder):
            return files.list_names(self.folder, ".parquet")

    def write(self, trial: str, attempt: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Publish the file of one attempt, in place of an earlier one."""
        publish(self.path(self._own_name(trial, attempt)), encode(rows, self.schema))

    def publish(self, name: str, content: bytes) -> None:
        """Publish a file."""
        publish(self.path(name), content)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; from object storage, many at once."""
        try:
            if files.is_uri(self.folder):
                with ThreadPoolExecutor(files.AT_ONCE) as pool:
                    deque(pool.map(files.remove, map(self.path, names)), maxlen=0)
            else:
                for name in names:
                    files.remove(self.path(name))
        except (OSError, pa.ArrowException) as error:
            raise _refused(self.folder, error) from error

    def remove_unfinished(self) -> None:
        """Remove files that killed writers left; no other process may be writing."""
        try:
            files.remove_unfinished(self.folder)
        except OSError as error:
            raise _refused(self.folder, error) from error

    def read(
        self, *, trial: str | None = None, columns: Collection[str] | None = None, dictionaries: Collection[str] = ()
    ) -> pa.Table:
        """Return the rows of all attempts, each attempt once, unsorted.

        Files that cannot be read are quarantined with a StoreWarning; files of a newer pixeltune are left out, and
        stay.

        Args:
            trial: The only trial to read; None for all.
            columns: The columns to read, `trial` and `attempt` among them; None for all.
            dictionaries: Text columns to return as dictionaries.
        """
        found = _Found(dictionaries)
        unreadable: dict[str, UnreadableError] = {}
        for _ in range(_MOST_LOOKS):
            names = [name for name in self.names() if trial is None or _may_hold(name, trial)]
            is_complete = True
            for name, content in self.contents([name for name in names if name not in found.names | unreadable.keys()]):
                if content is None:  # It was merged or quarantined by another process.
                    is_complete = False
                    continue
                try:
                    file = self.open(name, content, dictionaries if compacted_number(name) else ())
                    if file is None:
                        is_complete = False
                        continue
                    table = file.read(columns, trial if compacted_number(name) else None)
                    self.require_own(name, table)
                    found.add(name, table)
                except UnreadableError as error:
                    unreadable[name] = error
            if is_complete:
                break
        else:
            raise StoreError(
                f"results must not change while they are read, but {self.folder} changes all the time; try again"
            )
        if lost := [name for name in self.lost() if name not in unreadable]:
            self._warn(dict.fromkeys(lost, UnreadableError("it was damaged")), f"in {self.corrupt} since")
        if unreadable:
            self.quarantine(unreadable)
        return found.table(view_of(self.schema, columns, dictionaries))

    def joined(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return the rows of files that were read before, by name, each attempt once, unsorted."""
        found = _Found(())
        for name, table in tables.items():
            found.add(name, table)
        return found.table(view_of(self.schema, None, ()))

    def open(self, name: str, content: bytes, dictionaries: Collection[str] = ()) -> TableFile | None:
        """Open the bytes of a file; UnreadableError where they are damaged, None where the file is gone.

        Damaged bytes are read once more: a launch may have replaced the file, or the storage may have answered wrongly.
        """
        try:
            return TableFile(content, self.schema, dictionaries)
        except NewerError:
            raise
        except UnreadableError:
            again = self.content(name)
            if again == content:
                raise
        return None if again is None else TableFile(again, self.schema, dictionaries)

    def health(self) -> Health:
        """Check each file's digest; no file is moved."""
        with reading(self.corrupt):
            health = Health(quarantined=len(files.list_names(self.corrupt, ".parquet")))
        for _name, content in self.contents(self.names()):
            if content is None:
                continue
            try:
                health += Health(1, without_digest=int(not TableFile(content, self.schema).is_sealed))
            except NewerError:
                health += Health(1)
            except UnreadableError:
                health += Health(1, damaged=1)
        return health

    def lost(self) -> list[str]:
        """Return the names of damaged compacted files that were quarantined and not restored: each held many attempts.

        A sound file in quarantine was moved because of its contents, such as rows of others, and nothing is missing.
        """
        with reading(self.corrupt):
            names = [name for name in files.list_names(self.corrupt, ".parquet") if compacted_number(name)]
        present = set(self.names()) if names else set()
        return [name for name in names if name not in present and self._is_damaged(files.join(self.corrupt, name))]

    def _is_damaged(self, location: str) -> bool:
        try:
            with reading(location):
                TableFile(files.read_whole(location), self.schema).read()
        except UnreadableError:
            return True
        except FileNotFoundError:  # it was restored or removed just now
            pass
        return False

    def require_own(self, name: str, table: pa.Table) -> None:
        """Raise UnreadableError for a copy of another file, whose rows would count twice.

        Also for trials whose name is a path: trial names select the folders that are removed.
        """
        is_name = pc.match_substring_regex(table["trial"].cast(pa.string()), "^[A-Za-z0-9]+$")
        if not pc.all(is_name, skip_nulls=False, min_count=0).as_py():
            raise UnreadableError("it names trials otherwise than by letters and digits")
        if table.num_rows and not compacted_number(name):
            own = self._own_name(table["trial"][0].as_py(), table["attempt"][0].as_py())
            if name != own:
                raise UnreadableError(f"it holds what {own} should")

    def _own_name(self, trial: str, attempt: int) -> str:
        return f"{trial}.parquet" if self.is_by_trial else f"{trial}-{attempt}.parquet"

    def require_known(self, *, is_compacted_alone: bool = False) -> None:
        """Refuse to continue without files of a newer pixeltune, because their trials might be overwritten.

        Refuse damaged compacted files too: a launch would train all of their trials again.
        is_compacted_alone: skip the files of single attempts.
        """
        names = [name for name in self.names() if compacted_number(name) or not is_compacted_alone]
        for name, content in self.contents(names):
            try:
                if content is not None:
                    self.open(name, content)
            except NewerError as error:
                raise StoreError(f"a search must go on with what it knows, but {self.path(name)}: {error}") from None
            except UnreadableError as error:  # `read` handles single attempts
                if compacted_number(name):
                    raise self._incomplete(self.path(name), str(error)) from None
        for name in self.lost():
            raise self._incomplete(files.join(self.corrupt, name), "it was set aside")

    def _incomplete(self, location: str, why: str) -> StoreError:
        return StoreError(
            f"a search must know all its attempts, but {location}, which holds many, is damaged ({why}); put a copy of "
            f"it into {self.folder}, or remove it to train what it held again"
        )

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the bytes of each file, None for one that is gone; from object storage, many at once."""
        if not files.is_uri(self.folder):
            yield from ((name, self.content(name)) for name in names)
            return
        with ThreadPoolExecutor(files.AT_ONCE) as pool:
            for first in range(0, len(names), _ASKED_FOR):
                some = names[first : first + _ASKED_FOR]
                yield from zip(some, pool.map(self.content, some), strict=True)

    def content(self, name: str) -> bytes | None:
        """Return the bytes of one file; None where it does not exist."""
        try:
            with reading(self.path(name)):
                return files.read_whole(self.path(name))
        except FileNotFoundError:
            return None

    def quarantine(self, unreadable: Mapping[str, UnreadableError]) -> None:
        """Move unreadable files to the quarantine folder; those of a newer pixeltune stay."""
        newer = {name: error for name, error in unreadable.items() if isinstance(error, NewerError)}
        damaged = {name: error for name, error in unreadable.items() if name not in newer}
        if newer:
            self._warn(newer, "still there", "")
        if not damaged:
            return
        try:
            for name in damaged:
                with suppress(FileNotFoundError):  # another reader was first
                    files.move(self.path(name), files.join(self.corrupt, name))
            whither = f"moved to {self.corrupt}"
        except (OSError, pa.ArrowException) as error:
            whither = f"still there, since {self.corrupt} cannot be written ({storage_reason(error)})"
        self._warn(damaged, whither)

    def _warn(
        self, unreadable: Mapping[str, UnreadableError], whither: str, advice: str = "; put a copy of it back"
    ) -> None:
        first, why = next(iter(unreadable.items()))
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        many = ", with the many attempts in it" if any(map(compacted_number, unreadable)) and advice else ""
        warnings.warn(
            f"left out {first}{more} of {self.folder}{many}: {why}; {whither}{advice}", StoreWarning, stacklevel=6
        )


class _Found:
    """The contents of a folder that were read so far. names: of the files that were read."""

    def __init__(self, dictionaries: Collection[str]) -> None:
        self.names: set[str] = set()
        self._dictionaries = dictionaries
        self._compacted: dict[int, pa.Table] = {}
        self._singles: list[pa.Table] = []
        self._blocks: list[pa.Table] = []

    def add(self, name: str, table: pa.Table) -> None:
        self.names.add(name)
        number = compacted_number(name)
        if number:
            self._compacted[number] = table
            return
        self._singles.append(table)
        if len(self._singles) == _BLOCK:
            self._join_singles()

    def table(self, view: pa.Schema) -> pa.Table:
        """Return all rows, each attempt once."""
        if self._singles:
            self._join_singles()
        singles = text_array([key for name in self.names if (key := attempt_key(name)) is not None])
        visible: list[pa.Table] = []
        newer: list[pa.Table] = []
        for _number, table in sorted(self._compacted.items(), reverse=True):
            visible.append(without(table, singles))
            for other in newer:
                if _may_overlap(table, other):
                    visible[-1] = without(visible[-1], keys_of(other))
            newer.append(table)
        return pa.concat_tables([pa.Table.from_batches([], view), *reversed(visible), *self._blocks])

    def _join_singles(self) -> None:
        block = pa.concat_tables(self._singles).combine_chunks()
        for place, name in enumerate(block.schema.names):
            if name in self._dictionaries:
                field = block.schema.field(name).with_type(DICTIONARY_COLUMNS)
                block = block.set_column(place, field, block[name].dictionary_encode().cast(DICTIONARY_COLUMNS))
        self._blocks.append(block)
        self._singles = []


def compacted_number(name: str) -> int:
    """Return the number of a compacted file, from 1; 0 for the name of another."""
    match = _COMPACTED_NAME.fullmatch(name)
    return int(match[1]) if match else 0


def compacted_name(number: int) -> str:
    """Return the name of the compacted file with this number."""
    return f"{COMPACTED}-{number:05d}.parquet"


def attempt_key(name: str) -> str | None:
    """Return `<trial>-<attempt>` of an attempt's own file; None for the name of another."""
    match = _ATTEMPT_NAME.fullmatch(name)
    return match[1] if match and not compacted_number(name) else None


def keys_of(table: pa.Table) -> pa.Array:
    """Return `<trial>-<attempt>` of each attempt in a table, once."""
    return pc.unique(_keys(table))


def without(table: pa.Table, keys: pa.Array) -> pa.Table:
    """Return the rows of attempts that are not among `keys`."""
    if not len(keys):
        return table
    mask = pc.is_in(_keys(table), keys)
    return table.filter(pc.invert(mask)) if pc.any(mask).as_py() else table


def _keys(table: pa.Table) -> pa.ChunkedArray:
    parts = [table[name].cast(pa.string()) for name in ("trial", "attempt")]
    return pc.binary_join_element_wise(*parts, text_array(["-"])[0])


def _may_overlap(table: pa.Table, other: pa.Table) -> bool:
    """Return whether keys must be compared: compaction goes by trials, so its files seldom hold the same ones."""
    (low, high), (other_low, other_high) = (pc.min_max(one["trial"]).as_py().values() for one in (table, other))
    return None not in (low, other_low) and bool(low <= other_high and other_low <= high)


def _may_hold(name: str, trial: str) -> bool:
    return bool(compacted_number(name)) or name.startswith(f"{trial}-")


def publish(location: str, content: bytes) -> None:
    """Write a file of the results; StoreError where the disk or the storage refuses."""
    try:
        files.write_whole(location, content)
    except (OSError, pa.ArrowException) as error:
        raise _refused(location, error) from error


def _refused(location: str, error: BaseException) -> StoreError:
    return StoreError(
        f"results must be writable, but {location} is not ({storage_reason(error)}); free or mount the disk, "
        "or take another --storage"
    )


@contextmanager
def reading(location: str) -> Iterator[None]:
    """Convert errors of object storage or a disk to a one-line StoreError; the caller handles missing files."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"results must be readable, but {location} is not ({storage_reason(error)})") from error


def storage_reason(error: BaseException) -> str:
    """Return why a disk or a storage refused, in one line."""
    return str(getattr(error, "strerror", None) or first_line(error))
