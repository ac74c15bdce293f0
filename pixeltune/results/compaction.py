"""Merge the many small files of a search into a few large ones, which read a hundred times faster.

A merged file is published next to its sources and read back; only then are the sources removed. A kill at any moment
therefore leaves every row in at least one file. `table_folder` defines which file counts when a row is stored in two,
and the next compaction removes what the killed one left. Only attempts of trials that have ended are merged, because
those of the others are still being written. Files of a newer pixeltune are left as they are.

One batch of rows is in memory at a time. A merged file that is far from full is merged again with later files, so that
the number of files stays small and each row is rewritten only a few times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pixeltune.errors import StoreError
from pixeltune.results.parquet_io import TableFile, UnreadableError, encode_table, text_array
from pixeltune.results.schema import TABLE_KEY, Status
from pixeltune.results.store import SearchStore
from pixeltune.results.table_folder import TableFolder, attempt_key, compacted_name, compacted_number, keys_of, without

FULL_BYTES = 64 * 2**20
"""Bytes of Arrow columns in one merged file; a file of less than half of it may be merged again."""

MANY_FILES = 1000
"""Number of row and curve files from which on a search merges them when it ends."""

_BLOCK = 200
"""Number of files that are read at a time: with long curves, some tens of megabytes."""
_ORDER = {"trials": ("number", "trial", "attempt"), "curves": ("trial", "images_seen", "attempt")}
"""The order of `read_results` and `read_curves`, which then need not sort."""


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction.

    Attributes:
        merged: Number of files that were merged and removed.
        written: Number of files that replace them.
        left: Number of files in the folder at the end, including the written ones.
        without_digest: Number of merged files of an earlier version, in which damage may not have been detected.
    """

    merged: int
    written: int
    left: int
    without_digest: int = 0

    def __add__(self, other: Compaction) -> Compaction:
        return Compaction(
            self.merged + other.merged,
            self.written + other.written,
            self.left + other.left,
            self.without_digest + other.without_digest,
        )


def compact(store: SearchStore) -> Compaction:
    """Merge the rows and curves of all trials that have ended; the caller must hold `store.lock()`."""
    ended = _ended(store)
    return _compact(store.trial_files, ended) + _compact(store.curve_files, ended)


def compact_many(store: SearchStore) -> str:
    """Merge if there are many files, as a search does when it ends; return a line that reports the result, or ""."""
    if len(store.trial_files.names()) + len(store.curve_files.names()) < MANY_FILES:
        return ""
    try:
        done = compact(store)
    except StoreError as error:  # The search has succeeded, and can be read without it.
        return f"Its files were not merged: {error}"
    return f"Its {done.merged:,} files of rows and curves were merged into {done.written:,}." if done.merged else ""


def _ended(store: SearchStore) -> set[str]:
    """Return `<trial>-<attempt>` of the attempts that have ended, of trials that have ended."""
    table = store.trial_files.read(columns=("trial", "attempt", "status"))
    rows = list(zip(*(table[name].to_pylist() for name in ("trial", "attempt", "status")), strict=True))
    last = {trial: status for trial, _attempt, status in sorted(rows)}
    return {
        f"{trial}-{attempt}"
        for trial, attempt, status in rows
        if status != Status.RUNNING and last[trial] not in (Status.RUNNING, Status.INTERRUPTED)
    }


@dataclass(frozen=True)
class _Merged:
    """A compacted file.

    Attributes:
        keys: Keys of the attempts that are in no later compacted file.
        is_small: Whether it may be merged again.
        is_sealed: Whether it has a digest; a file of an earlier version has none and is rewritten with one.
    """

    name: str
    keys: frozenset[str]
    is_small: bool
    is_sealed: bool


def _compact(place: TableFolder, ended: set[str]) -> Compaction:
    place.remove_unfinished()
    names = place.names()
    singles = sorted((name for name in names if attempt_key(name) in ended), key=lambda name: (len(name), name))
    known = _known(place, [name for name in names if compacted_number(name)])
    place.remove([merged.name for merged in known if not merged.keys])  # Left by a kill: later files hold all of it.
    known = [merged for merged in known if merged.keys]
    batch = _Batch(place, known, after=max(map(compacted_number, [*names, *place.lost()]), default=0))
    for merged in known:  # Duplicates left by a kill, or attempts written after they were merged.
        twice = [name for name in singles if attempt_key(name) in merged.keys]
        if twice and batch.add(twice):
            batch.add([merged.name])
            batch.publish()
    rest = [name for name in singles if name not in batch.seen]
    again = [one for one in known if (one.is_small or not one.is_sealed) and one.name not in batch.seen]
    blocks = [rest[first : first + _BLOCK] for first in range(0, len(rest), _BLOCK)]
    is_due = rest or len(again) > 1 or not all(merged.is_sealed for merged in again)
    for names in [*([merged.name] for merged in again), *blocks] if is_due else []:
        batch.add(names)
        if batch.is_full:
            batch.publish()
    batch.publish()
    return Compaction(batch.merged, batch.written, len(place.names()), batch.without_digest)


def _known(place: TableFolder, names: Sequence[str]) -> list[_Merged]:
    """Return the contents of the compacted files, oldest first; quarantine unreadable ones."""
    known: list[_Merged] = []
    later: set[str] = set()
    unreadable: dict[str, UnreadableError] = {}
    for name in sorted(names, key=compacted_number, reverse=True):
        content = place.content(name)
        if content is None:
            continue
        try:
            file = place.open(name, content)
            if file is None:
                continue
            table = file.read()
            place.require_own(name, table)
            keys = frozenset(keys_of(table).to_pylist()) - later
            later |= keys
            if file.is_current:
                is_small = table.nbytes < FULL_BYTES / 2
                known.append(_Merged(name, keys, is_small, file.is_sealed))
        except UnreadableError as error:
            unreadable[name] = error
    place.quarantine(unreadable)
    return known[::-1]


class _Batch:
    """Files that are being merged into one, batch after batch.

    Attributes:
        seen: Files that were read so far, including those that could not be merged.
        merged, written, without_digest: Counts so far, as in Compaction.
    """

    def __init__(self, place: TableFolder, known: Sequence[_Merged], *, after: int) -> None:
        self.seen: set[str] = set()
        self.merged = 0
        self.written = 0
        self.without_digest = 0
        self._place = place
        self._visible = {merged.name: merged.keys for merged in known}
        self._number = after
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._without_digest = 0
        self._blocks: list[pa.Table] = []

    @property
    def is_full(self) -> bool:
        """Return whether the batch has as many rows as one file should hold."""
        return bool(sum(block.nbytes for block in self._blocks) >= FULL_BYTES)

    def add(self, names: Sequence[str]) -> int:
        """Read those files that may be merged; return their number."""
        self.seen.update(names)
        unreadable: dict[str, UnreadableError] = {}
        tables: dict[str, pa.Table] = {}
        for name, content in self._place.contents(names):
            if content is None:
                continue
            try:
                file = self._place.open(name, content)
                if file is not None and file.is_current:
                    tables[name] = self._shown(name, file.read())
                    self._without_digest += not file.is_sealed
            except UnreadableError as error:
                unreadable[name] = error
        self._place.quarantine(unreadable)
        if tables:
            self._names += tables
            self._blocks.append(pa.concat_tables(tables.values()).combine_chunks())
        return len(tables)

    def _shown(self, name: str, table: pa.Table) -> pa.Table:
        """Return the rows of a file that count: those in no later compacted file and in no file of the batch."""
        if name not in self._visible:
            self._place.require_own(name, table)
            return table
        here = {key for other in self._names if (key := attempt_key(other)) is not None}
        hidden = set(keys_of(table).to_pylist()) - (self._visible[name] - here)
        return without(table, text_array(hidden))

    def publish(self) -> None:
        """Write the batch as one file, then remove the files that it was made of."""
        names, rows = self._names, pa.concat_tables(self._blocks) if self._blocks else None
        without_digest = self._without_digest
        self._clear()
        if rows is None or (len(names) == 1 and compacted_number(names[0]) and not without_digest):
            return
        if rows.num_rows:
            self._number += 1
            self._write(compacted_name(self._number), rows)
        # Remove large files first: while the file of an attempt exists, it shows the attempt's outcome.
        self._place.remove([name for name in names if compacted_number(name)])
        self._place.remove([name for name in names if not compacted_number(name)])
        self.merged += len(names)
        self.without_digest += without_digest

    def _write(self, name: str, rows: pa.Table) -> None:
        table = self._place.schema.metadata[TABLE_KEY].decode()
        order = pc.sort_indices(rows, sort_keys=[(column, "ascending") for column in _ORDER[table]])
        rows = rows.take(order)
        self._place.publish(name, encode_table(rows, self._place.schema))
        if not self._holds(name, rows):
            self._place.remove([name])  # its sources still exist
            raise StoreError(f"a merged file must read as it was written, but {self._place.path(name)} does not")
        self.written += 1

    def _holds(self, name: str, rows: pa.Table) -> bool:
        """Return whether a file reads back as these rows."""
        content = self._place.content(name)
        try:
            return content is not None and bool(TableFile(content, self._place.schema).read().equals(rows))
        except UnreadableError:
            return False
