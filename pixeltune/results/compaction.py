"""Many small files of a search made into few large ones, which read a hundred times faster.

A merged file is published whole beside the files that it holds, read back, and only then are these removed. So a kill
at any moment leaves every row in at least one file, and `tables` says which counts where it stands in two; the next
compaction removes what the killed one left. Only attempts of trials that have ended are merged, for the others are
still written. Files that this version does not know in full, by a newer pixeltune, stay as they are.

One batch of rows is in memory at a time. A merged file that is far from full is merged again with what came later, so
that their number stays small and each row is rewritten a few times at most.
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
"""Of Arrow columns in one merged file; less than half of it may be merged again."""

MANY_FILES = 1000
"""Files of rows and curves from which on a search merges them at its end by itself."""

_BLOCK = 200
"""Files that are taken in at a time: of long curves, some tens of megabytes."""
_ORDER = {"trials": ("number", "trial", "attempt"), "curves": ("trial", "images_seen", "attempt")}
"""That of `read_results` and `read_curves`, which then need not sort."""


@dataclass(frozen=True)
class Compaction:
    """What was done. merged: files that were merged and removed. written: files in their place. left: files that are
    there in the end, the written ones included. without_digest: of the merged ones, those of an earlier version, in
    which damage might not have shown."""

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
    """Merge the rows and curves of all trials that have ended. The caller holds `store.lock()`."""
    ended = _ended(store)
    return _compact(store.trial_files, ended) + _compact(store.curve_files, ended)


def compact_many(store: SearchStore) -> str:
    """The same where there are many files, as a search does at its end; what was done in a line, or ""."""
    if len(store.trial_files.names()) + len(store.curve_files.names()) < MANY_FILES:
        return ""
    try:
        done = compact(store)
    except StoreError as error:  # The search has ended well, and reads as it is.
        return f"Its files were not merged: {error}"
    return f"Its {done.merged:,} files of rows and curves were merged into {done.written:,}." if done.merged else ""


def _ended(store: SearchStore) -> set[str]:
    """`<trial>-<attempt>` of the attempts that have ended, of trials that have."""
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
    """A compacted file. keys: of the attempts that no later one has. is_small: may be merged again. is_sealed: has a
    digest; one of an earlier version is written again, with one."""

    name: str
    keys: frozenset[str]
    is_small: bool
    is_sealed: bool


def _compact(place: TableFolder, ended: set[str]) -> Compaction:
    place.remove_unfinished()
    names = place.names()
    singles = sorted((name for name in names if attempt_key(name) in ended), key=lambda name: (len(name), name))
    known = _known(place, [name for name in names if compacted_number(name)])
    place.remove([merged.name for merged in known if not merged.keys])  # A kill left them: later ones hold all of it.
    known = [merged for merged in known if merged.keys]
    batch = _Batch(place, known, after=max(map(compacted_number, [*names, *place.lost()]), default=0))
    for merged in known:  # A kill left attempts in two places, or one was written again since it was merged.
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
    """What stands in the compacted files, oldest first; such as cannot be read are set aside, or left alone."""
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
    """Files that are being made into one, again and again. seen: all of them so far, and what could not be taken in.

    merged, written, without_digest: files so far, as in Compaction.
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
        """Whether its rows are as many as one file should hold."""
        return bool(sum(block.nbytes for block in self._blocks) >= FULL_BYTES)

    def add(self, names: Sequence[str]) -> int:
        """Take in those files that may be merged; how many these are."""
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
        """The rows of a file that count: of a compacted one, those that neither a later one has nor a file here."""
        if name not in self._visible:
            self._place.require_own(name, table)
            return table
        here = {key for other in self._names if (key := attempt_key(other)) is not None}
        hidden = set(keys_of(table).to_pylist()) - (self._visible[name] - here)
        return without(table, text_array(hidden))

    def publish(self) -> None:
        """Write what there is as one file, and then remove the files that it was made of."""
        names, rows = self._names, pa.concat_tables(self._blocks) if self._blocks else None
        without_digest = self._without_digest
        self._clear()
        if rows is None or (len(names) == 1 and compacted_number(names[0]) and not without_digest):
            return
        if rows.num_rows:
            self._number += 1
            self._write(compacted_name(self._number), rows)
        # Large ones first: while the file of an attempt is there, it says what became of it.
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
            self._place.remove([name])  # what it was made of is still there
            raise StoreError(f"a merged file must read as it was written, but {self._place.path(name)} does not")
        self.written += 1

    def _holds(self, name: str, rows: pa.Table) -> bool:
        """Whether a file reads as these rows, as any reader will read it."""
        content = self._place.content(name)
        try:
            return content is not None and bool(TableFile(content, self._place.schema).read().equals(rows))
        except UnreadableError:
            return False
