"""Results as pandas tables."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import pyarrow as pa

from pixeltune.errors import StoreError
from pixeltune.results.final import leaderboard_of
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore, find_searches

Attempts = Literal["latest", "all"]

_FREE_TEXT = ("trial", "config_key", "reason", "traceback", "data_checksum", "from_trial")
_NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def read_results(location: str, attempts: Attempts = "latest") -> pd.DataFrame:
    """A row a trial, of one search folder or of all searches in a storage; `attempts="all"` keeps earlier tries.

    Integers and truth values are nullable, times are UTC, words that repeat are categories. The columns, with
    units, stand in `pixeltune.results.schema.COLUMNS`.
    """
    _require_attempts(attempts)
    table = pa.concat_tables(store.trial_files.read() for store in find_searches(location))
    frame = _tidy(table).sort_values(["search", "number", "trial", "attempt"], ignore_index=True)
    return frame if attempts == "all" else _latest(frame, ["search", "trial"])


def read_curves(location: str, attempts: Attempts = "latest") -> pd.DataFrame:
    """A row a report, of one search folder or of all searches in a storage.

    A resumed attempt continues the curve of the one before; where both reported at the same number of images, the
    later counts. `attempts="all"` keeps both.
    """
    _require_attempts(attempts)
    table = pa.concat_tables(store.curve_files.read() for store in find_searches(location))
    frame = _tidy(table).sort_values(["search", "trial", "images_seen", "attempt"], ignore_index=True)
    return frame if attempts == "all" else _latest(frame, ["search", "trial", "images_seen"])


def read_images(location: str) -> pd.DataFrame:
    """A row a test image and final run, of one search folder or of all searches in a storage.

    `image` counts from 0 in the order of the test split; nats are float32 numbers, whose sum over the images of a run,
    divided by their number, is its row's `test_nats`.
    """
    table = pa.concat_tables(store.image_files.read() for store in find_searches(location))
    return _tidy(table).sort_values(["search", "trial", "image"], ignore_index=True)


def read_final(location: str) -> pd.DataFrame:
    """The leaderboard of a final, such as results/digits_quick-final: a row a configuration, the lowest mean first.

    Means over seeds, differences to the lowest, their standard errors and what may be said of them; the columns are
    explained at `pixeltune.results.final.final_leaderboard`.
    """
    store = SearchStore.at(location)
    if store.manifest().final is None:
        raise StoreError(f"only a final has means over seeds, but {store.folder} is a search; run `pixeltune final`")
    return pd.DataFrame(leaderboard_of(store))


def _tidy(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    for field in table.schema:
        if pa.types.is_string(field.type) and field.name not in _FREE_TEXT and field.name != "status":
            frame[field.name] = frame[field.name].astype("category")
    if "status" in frame:
        frame["status"] = pd.Categorical(frame["status"], categories=[str(status) for status in Status])
    return frame


def _latest(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    ordered = frame.sort_values("attempt", kind="stable")
    return frame.loc[ordered.drop_duplicates(keys, keep="last").index.sort_values()].reset_index(drop=True)


def _require_attempts(attempts: str) -> None:
    if attempts not in ("latest", "all"):
        raise StoreError(f'attempts must be "latest" or "all", but got {attempts!r}')
