"""Results as pandas tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pixeltune.errors import StoreError
from pixeltune.files import Location, absolute, exists, require_location
from pixeltune.results.final_statistics import leaderboard_of
from pixeltune.results.identity import is_name, report_copies
from pixeltune.results.own_keys import new_keys, parse_own_keys
from pixeltune.results.parquet_io import view_of
from pixeltune.results.repeats import SEEDS, SEEDS_LEFT, merge_repeats
from pixeltune.results.schema import OWN_KEYS, Status
from pixeltune.results.storage import storage_or_default
from pixeltune.results.store import SearchStore, find_searches, searches_at
from pixeltune.results.table_folder import TableFolder
from pixeltune.space.metrics import METRICS

Attempts = Literal["latest", "all"]
Locations = Location | Sequence[Location]

FREE_TEXT = ("trial", "config_key", "reason", "traceback", "data_checksum", "data_notes", "from_trial", "repeat_of")
"""Text columns that do not become categories."""

_NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def read_results(
    location: Locations, attempts: Attempts = "latest", *, storage: Location | None = None
) -> pd.DataFrame:
    """Return the trials of one search, of several, or of all searches in a storage, one row a trial.

    The column `search` has the name of each trial's search.

    Args:
        location: A search or a storage of searches, or a list of them: the path or URI of its folder, or the name of
            a search in `storage`.
        attempts: `latest` for the latest attempt of each trial, `all` for every attempt.
        storage: The folder or URI of all results, for searches that are given by name; by default
            PIXELTUNE_STORAGE, or `results`.

    Returns: A table with the columns of `pixeltune.results.schema.TRIAL_COLUMNS`, such as `search`, `trial`, `status`,
        `valid_bits_per_dim` (bits/dim), `valid_nats` (nats/image) and `train_seconds` (s); `pixeltune columns` prints
        all of them with units. Integers and booleans are nullable, times are UTC, and repeated texts are categories.
        Keys that only families and likelihoods of your own have are further columns at the end; the modules that define
        them are not imported.

    Raises:
        StoreError: There is no search, it cannot be read, or two have one name.
    """
    _require_attempts(attempts)
    tables = [(store, store.trial_files) for store in _searches(location, storage_or_default(storage))]
    return _with_own_keys(_frame(tables, ["search", "number", "trial", "attempt"], attempts))


def read_curves(location: Locations, attempts: Attempts = "latest", *, storage: Location | None = None) -> pd.DataFrame:
    """Return the learning curves of one search, of several, or of all searches in a storage, one row a report.

    A resumed attempt continues the curve of the one before.

    Args:
        location: A search or a storage of searches, or a list of them: the path or URI of its folder, or the name of
            a search in `storage`.
        attempts: `latest` keeps the later report where two attempts reported at the same number of images; `all` keeps
            both.
        storage: The folder or URI of all results, for searches that are given by name; by default
            PIXELTUNE_STORAGE, or `results`.

    Returns:
        A table with the columns of `pixeltune.results.schema.CURVE_COLUMNS`, such as `images_seen` (training images),
        `train_bits_per_dim` and `valid_bits_per_dim` (bits/dim); `pixeltune columns` prints all of them with units.

    Raises:
        StoreError: There is no search, it cannot be read, or two have one name.
    """
    _require_attempts(attempts)
    tables = [(store, store.curve_files) for store in _searches(location, storage_or_default(storage))]
    return _frame(tables, ["search", "trial", "images_seen", "attempt"], attempts)


def read_images(location: Locations, *, storage: Location | None = None) -> pd.DataFrame:
    """Return the nats of test images of one final, of several, or of all in a storage, one row an image and run.

    Args:
        location: A search or a storage of searches, or a list of them: the path or URI of its folder, or the name of
            a search in `storage`.
        storage: The folder or URI of all results, for searches that are given by name; by default
            PIXELTUNE_STORAGE, or `results`.

    Returns: A table with the columns of `pixeltune.results.schema.IMAGE_COLUMNS`: `image` counts from 0 in the order of
        the test split, `nats` (nats/image) are float32 numbers. The sum of `nats` over the images of a run, divided by
        their number, is the `test_nats` of its row.

    Raises:
        StoreError: There is no search, it cannot be read, or two have one name.
    """
    tables = [(store, store.image_files) for store in _searches(location, storage_or_default(storage))]
    return _frame(tables, ["search", "trial", "image", "attempt"], "all")


def read_final(location: Location) -> pd.DataFrame:
    """Return the leaderboard of a final: one row a configuration, the lowest mean first.

    Args:
        location: The folder of a final, such as `results/digits_quick-final`.

    Returns:
        A table of means over seeds, differences to the lowest mean and their standard errors (bits/dim and nats/image),
        and `verdict`; see `pixeltune.results.final_statistics.final_leaderboard` for the columns.

    Raises:
        StoreError: The folder holds no final, a file of nats is missing, or it does not belong to its row.
    """
    store = SearchStore.at(location)
    if store.manifest().final is None:
        raise StoreError(f"only a final has means over seeds, but {store.folder} is a search; run `pixeltune final`")
    frame = pd.DataFrame(leaderboard_of(store))
    return frame.astype(dict.fromkeys(frame.filter(regex="_error$|_half_width$"), "float64"))


def configurations_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `read_results` with one row a configuration: in a search with repeats, means over its seeds.

    Args:
        frame: All latest rows of one search or of several.

    Returns:
        The rows of the first trials. Numbers of type float among the metrics are means, and the columns `seeds` and
        `seeds_left` are added; without repeats the same table.
    """
    if not frame["repeats"].notna().any():
        return frame
    names = ["search", "trial", "number", "status", "reason", "seed", "repeats", "repeat_of", "continues_attempt"]
    names += ["bits_verified", "bits_unverified_reason", *METRICS]
    plain = frame[names].astype(object)
    records = plain.where(plain.notna(), None).to_dict("records")
    merged = merge_repeats({str(key): value for key, value in row.items()} for row in records)
    places = {(row["search"], row["trial"]): place for place, row in enumerate(records)}
    found = frame.iloc[[places[row["search"], row["trial"]] for row in merged]].copy()
    for name in ("status", "bits_verified", *(name for name in METRICS if frame[name].dtype == "float64")):
        found[name] = pd.Series([row[name] for row in merged], index=found.index).astype(frame[name].dtype)
    for name in (SEEDS, SEEDS_LEFT):
        found[name] = pd.Series([row.get(name) for row in merged], index=found.index, dtype="Int64")
    return found


def dtype_names(schema: pa.Schema) -> dict[str, str]:
    """Return the name of the pandas type that each column has in these tables."""
    empty = _tidy(pa.Table.from_batches([], view_of(schema, None, _category_columns(schema))))
    return {str(name): str(dtype) for name, dtype in empty.dtypes.items()}


def _category_columns(schema: pa.Schema) -> list[str]:
    """Return the text columns that become categories."""
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    return [name for name in text if name not in FREE_TEXT]


def _searches(location: Locations, storage: str) -> list[SearchStore]:
    """Return the searches at one or several locations, each once.

    Rows are matched by search and trial, so two searches of one name would be read as one.
    """
    if isinstance(location, str | os.PathLike):
        return _searches_at(location, storage)
    found: dict[str, SearchStore] = {}
    for one in location:
        for store in _searches_at(one, storage):
            other = found.setdefault(store.search, store)
            if absolute(other.folder) != absolute(store.folder):
                raise StoreError(
                    f"searches that are read together must have different names, but {other.folder} and "
                    f"{store.folder} have one; read each alone, or rename a folder"
                )
    if not found:
        raise StoreError("at least one search must be named, but the list is empty")
    if len(found) > 1:
        report_copies((store.folder, store.search_id) for store in found.values())
    return [*found.values()]


def _searches_at(location: Location, storage: str) -> list[SearchStore]:
    """Return the searches at a location: at that path, or else of that name in the storage."""
    text = require_location(location)
    if is_name(text):
        named = SearchStore(storage, text)
        is_there = exists(text)
        if named.exists() and not (is_there and searches_at(text)):
            return [named]
        if not is_there and exists(storage):
            raise StoreError(
                f"results must be a search or a storage of some, but there is nothing at {text}, and no search "
                f"{text} in {storage}"
            )
    return find_searches(text)


def _frame(tables: Sequence[tuple[SearchStore, TableFolder]], order: list[str], attempts: Attempts) -> pd.DataFrame:
    """Return the tables of several searches as one, sorted; of rows that differ in the last key alone, keep the last.

    The last key of `order` is the attempt. All work is done in Arrow: 100,000 rows of 128 columns then take a second
    and are in memory once.
    """
    texts = _category_columns(tables[0][1].schema)
    table = pa.concat_tables(store.read(part, dictionaries=texts) for store, part in tables).unify_dictionaries()
    if table.num_rows < 2:
        return _tidy(table)
    rises, differs = _steps(table, order)
    if not pc.all(rises).as_py():
        keys = pa.table({key: _sortable(table[key]) for key in order})
        table = table.take(pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in order]))
        _rises, differs = _steps(table, order)
    if attempts == "latest" and not pc.all(differs).as_py():
        table = table.filter(pa.concat_arrays([differs.combine_chunks(), pa.array([True])]))
    return _tidy(table)


def _steps(table: pa.Table, order: list[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return for each row but the last: whether the next is in order, and differs in a key before the last."""
    rises, same, differs = True, True, False
    for key in order:
        differs = pc.invert(same) if key == order[-1] else differs
        column = _sortable(table[key])
        here, following = column.slice(0, max(0, len(column) - 1)), column.slice(1)
        rises = pc.and_(rises, pc.or_(pc.invert(same), pc.less_equal(here, following)))
        same = pc.and_(same, pc.equal(here, following))
    return rises, differs


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values that can be compared; missing ones come last."""
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    return column if not column.null_count else pc.fill_null(column, 2**31 - 1)


def _tidy(table: pa.Table) -> pd.DataFrame:
    """Return a pandas table whose categories are in alphabetical order, those of `status` in that of `Status`."""
    categories = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    # Each column is freed in Arrow as it is converted to pandas.
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get, split_blocks=True, self_destruct=True)
    for name in categories:
        known = list(Status) if name == "status" else sorted(frame[name].cat.categories)
        frame[name] = frame[name].cat.set_categories([str(word) for word in known])
    return frame


def _with_own_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """Add a column for each key that only classes of the user's own have."""
    texts = frame[OWN_KEYS]
    known = {text: parse_own_keys(text) for text in texts.dropna().unique()}
    for name in new_keys(key for keys in known.values() for key in keys):
        values = [None if pd.isna(text) else known[text].get(name) for text in texts]
        frame[name] = pd.Series(values, index=frame.index, dtype=_dtype_of(values))
    return frame


def _dtype_of(values: Sequence[object]) -> Any:
    """Return the type of a column with these values, in which classes of several modules may differ."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.BooleanDtype()
    if kinds == {int}:
        return pd.Int64Dtype()
    if kinds and kinds <= {int, float}:
        return "float64"
    return "category" if kinds == {str} else "object"


def _require_attempts(attempts: str) -> None:
    if attempts not in ("latest", "all"):
        raise StoreError(f'attempts must be "latest" or "all", but got {attempts!r}')
