"""The identity of a search: its name is the name of its folder; its id is in search.json.

A search gets its id when it begins, and each of its rows carries it. So a folder may be moved, copied or renamed:
readers take the name from the folder, and report rows and folders that the ids show to be in the wrong place. No row
is merged or left out because of an id.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pixeltune.errors import StoreError
from pixeltune.format import counted, is_or_are
from pixeltune.results.parquet_io import text_array
from pixeltune.results.table_folder import StoreWarning

MANIFEST_NAME = "search.json"
LAUNCH_NAME = "launch.json"
PROGRESS_NAME = "progress.json"
WARM_START_NAME = "warm_start.parquet"
REQUESTS_NAME = "requests"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_OWN_FOLDERS = {"trials", "curves", "images", "checkpoints", "samples", "callbacks", REQUESTS_NAME}
_OWN_NAMES = _OWN_FOLDERS | {MANIFEST_NAME, LAUNCH_NAME, PROGRESS_NAME, WARM_START_NAME}
"""Files and folders that each search keeps: a search of this name would make its storage look like a search."""
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Names that Windows gives to devices, also with an extension."""


def is_name(name: str) -> bool:
    """Return whether a folder of this name may hold a search."""
    return bool(_NAME.fullmatch(name))


def require_name(name: str) -> None:
    """Refuse a name that a folder of results cannot have.

    Raises:
        StoreError: The name has other characters than letters, digits and inner . _ + -.
    """
    if not is_name(name):
        raise StoreError(f"a search name must be letters, digits and inner . _ + -, but got {name!r}; rename it")


def require_new_name(name: str) -> None:
    """Refuse a name that no new search may have.

    Raises:
        StoreError: The name is not one of a folder, or is kept for something else here or on Windows.
    """
    require_name(name)
    if name.casefold() in _OWN_NAMES:
        why = "is a file or folder that each search keeps"
    elif name.casefold().partition(".")[0] in _DEVICES:
        why = "is a device on Windows"
    elif name.endswith("."):
        why = "loses its last dot on Windows"
    else:
        return
    raise StoreError(
        f"a search must have a name of its own, but got {name!r}, which {why}; take another one with --name "
        "(results that have this name can be renamed: their folder's name is theirs)"
    )


def under_folder_name(table: pa.Table, name: str, search_id: str | None) -> pa.Table:
    """Return rows with the folder's name as their search; report those that carry the id of another search.

    Args:
        table: Rows of one search folder.
        name: The name of the folder.
        search_id: The id in its search.json; "" if that has none, None if there is no search.json to compare with.
    """
    names = table.schema.names
    if not table.num_rows or "search" not in names:
        return table
    if search_id is not None and "search_id" in names:
        _report_strangers(table["search_id"].cast(pa.string()), name, search_id)
    if pc.unique(table["search"].cast(pa.string())).to_pylist() == [name]:
        return table
    zeros = pa.Array.from_buffers(pa.int32(), table.num_rows, [None, pa.py_buffer(bytes(4 * table.num_rows))])
    repeated = pa.DictionaryArray.from_arrays(zeros, text_array([name]))
    field = table.schema.field("search")
    return table.set_column(names.index("search"), field, repeated.cast(field.type))


def report_copies(searches: Iterable[tuple[str, str | None]]) -> None:
    """Warn of folders that hold the same search, given the folder and the id of each search of a storage."""
    folders: dict[str, list[str]] = defaultdict(list)
    for folder, search_id in searches:
        if search_id:
            folders[search_id].append(folder)
    for copies in folders.values():
        if len(copies) > 1:
            warnings.warn(
                f"{' and '.join(copies)} are copies of one search; all are read, each under the name of its folder, so "
                "that a trial counts once for each copy; move copies out of the storage",
                StoreWarning,
                stacklevel=4,
            )


def _report_strangers(ids: pa.ChunkedArray, name: str, search_id: str) -> None:
    own = pc.equal(ids, text_array([search_id])[0])
    count = pc.sum(pc.invert(own)).as_py() or 0
    if count:
        warnings.warn(
            f"{counted(count, 'row')} in the folder {name} {is_or_are(count)} of another search than its "
            f"{MANIFEST_NAME}; they are read as rows of {name}; move them to the search that they belong to, or "
            f"put its {MANIFEST_NAME} back",
            StoreWarning,
            stacklevel=5,
        )
