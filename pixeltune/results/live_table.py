"""One table of a search in memory, read again where a file changed: for programs that watch a search and never write.

A watcher looks at the listing of the folder, and reads only files that are new or were published again since its last
look. Damaged files stay where they are; other readers move them away.
"""

from __future__ import annotations

import warnings

import pyarrow as pa

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.parquet_io import UnreadableError
from pixeltune.results.table_folder import StoreWarning, TableFolder, compacted_number, reading

_MOST_LOOKS = 20

Stamps = dict[str, tuple[int, int]]


class LiveTable:
    """The rows of one table as they were at the last `refresh`."""

    def __init__(self, table: TableFolder) -> None:
        self._table = table
        self._stamps: Stamps = {}
        self._read: dict[str, pa.Table] = {}

    def refresh(self) -> bool:
        """Read what changed since the last call, and return whether anything did.

        Files that cannot be read are left out with a StoreWarning until they are published again.

        Raises:
            StoreError: The folder cannot be read; the rows stay as they were.
        """
        stamps, read = dict(self._stamps), dict(self._read)
        for _ in range(_MOST_LOOKS):
            with reading(self._table.folder):
                listed = files.stamps(self._table.folder, ".parquet")
            if listed == stamps:
                break
            # Compacted files first: they are published before the files that they hold are removed.
            changed = [name for name in listed if listed[name] != stamps.get(name)]
            changed.sort(key=lambda name: (not compacted_number(name), name))
            stamps = {name: stamp for name, stamp in listed.items() if stamp == stamps.get(name)}
            read = {name: table for name, table in read.items() if name in stamps}
            if self._read_into(changed, listed, stamps, read):
                break
        else:
            raise StoreError(
                f"results must not change while they are read, but {self._table.folder} changes all the time"
            )
        is_changed = stamps != self._stamps
        self._stamps, self._read = stamps, read
        return is_changed

    def table(self) -> pa.Table:
        """Return the rows of all attempts, each attempt once, unsorted."""
        return self._table.joined(self._read)

    def _read_into(self, names: list[str], listed: Stamps, stamps: Stamps, read: dict[str, pa.Table]) -> bool:
        """Read files; return whether all were still there."""
        is_complete = True
        for name, content in self._table.contents(names):
            try:
                file = None if content is None else self._table.open(name, content)
                if file is None:  # it was merged or removed by another process
                    is_complete = False
                    continue
                table = file.read()
                self._table.require_own(name, table)
                read[name] = table
            except UnreadableError as error:
                read.pop(name, None)
                warnings.warn(f"left out {self._table.path(name)}: {error}", StoreWarning, stacklevel=2)
            stamps[name] = listed[name]
        return is_complete
