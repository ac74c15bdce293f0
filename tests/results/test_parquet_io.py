from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltune.errors import StoreError
from pixeltune.results.parquet_io import UnreadableError, decode, encode
from pixeltune.results.schema import CURVE_SCHEMA, SCHEMA_VERSION, TABLE_KEY, TRIAL_SCHEMA, VERSION_KEY
from tests.support.results import NOW, PAIRS, make_config, make_report, make_row
from tests.support.row_strategies import rows_of


def whole(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    return {name: row.get(name) for name in schema.names}


def complete(row: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "search": "tiny", **row}


@given(rows_of(TRIAL_SCHEMA))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_trial_rows_come_back_equal(row: dict[str, Any]) -> None:
    assert decode(encode([row], TRIAL_SCHEMA), TRIAL_SCHEMA) == [whole(row, TRIAL_SCHEMA)]


@pytest.mark.parametrize(("family", "likelihood"), PAIRS)
def test_trial_rows_of_every_family_come_back_equal(family: str, likelihood: str) -> None:
    row = complete(make_row(**make_config(family, likelihood).flat()))
    assert decode(encode([row], TRIAL_SCHEMA), TRIAL_SCHEMA) == [whole(row, TRIAL_SCHEMA)]


@given(st.lists(rows_of(CURVE_SCHEMA), max_size=5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_curves_of_any_length_come_back_equal(rows: list[dict[str, Any]]) -> None:
    assert decode(encode(rows, CURVE_SCHEMA), CURVE_SCHEMA) == [whole(row, CURVE_SCHEMA) for row in rows]


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("valid_bpd", 1.0, r"unknown column `valid_bpd`; did you mean `valid_bits_per_dim`"),
        ("valid_nats", float("nan"), "`valid_nats` must be a finite number, but got nan"),
        ("valid_nats", float("inf"), "finite"),
        ("valid_nats", "1.0", "finite number"),
        ("valid_nats", True, "finite number"),
        ("num_parameters", 1.0, "`num_parameters` must be an integer"),
        ("num_parameters", True, "integer"),
        ("model.layers", 2**63, "must fit the columns"),
        ("is_bound", 1, "true or false"),
        ("reason", 3, "`reason` must be text"),
        ("status", "done", "`status` must be one of running, finished"),
        ("status", None, "`status` must be in every row"),
        ("started_at", datetime(2026, 1, 1), "time with a time zone"),
        ("own_keys", "{", "`own_keys` must be JSON of the keys of a family or a likelihood, but Expecting property"),
        ("own_keys", '{"status": "finished"}', "`own_keys` must be JSON of the keys of a family"),
        ("own_keys", 3, "`own_keys` must be JSON of the keys of a family"),
        ("model.wings", 3, "unknown column `model.wings`"),
    ],
)
def test_unknown_and_ill_typed_columns_are_named(column: str, value: object, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint) as caught:
        encode([complete(make_row(**{column: value}))], TRIAL_SCHEMA)
    assert "\n" not in str(caught.value)


def test_keys_of_a_class_of_ones_own_come_back_in_every_row() -> None:
    own = {"model.family": "own:Wide", "model.layers": 2, "model.wings": 3, "model.slope": 0.1, "model.note": None}
    rows = [complete(make_row(own_keys=json.dumps(own), **own)), complete(make_row(trial="00001"))]
    for row in decode(encode(rows, TRIAL_SCHEMA), TRIAL_SCHEMA):
        has = row["trial"] != "00001"
        assert [row[key] for key in ("model.wings", "model.slope", "model.note")] == (
            [3, 0.1, None] if has else [None] * 3
        )
    with pytest.raises(StoreError, match=r"unknown column `model\.wings`"):  # not what the column of all keys has
        encode([rows[0] | {"model.wings": 4}], TRIAL_SCHEMA)


def test_numbers_of_numpy_are_numbers() -> None:
    row = complete(make_row(num_parameters=np.int64(3), valid_nats=np.float32(0.5), is_bound=np.bool_(True)))
    [back] = decode(encode([row], TRIAL_SCHEMA), TRIAL_SCHEMA)
    assert (back["num_parameters"], back["valid_nats"], back["is_bound"]) == (3, 0.5, True)


def test_text_with_half_characters_is_kept_readable() -> None:
    [back] = decode(encode([complete(make_row(traceback="caf\udce9"))], TRIAL_SCHEMA), TRIAL_SCHEMA)
    assert back["traceback"] == "caf\\udce9"


@pytest.mark.parametrize("table", ["trial", "curve"])
def test_a_file_cut_at_any_byte_is_unreadable(table: str) -> None:
    schema = TRIAL_SCHEMA if table == "trial" else CURVE_SCHEMA
    reports = [complete({"trial": "00000", "attempt": 1, **make_report(images)}) for images in (100, 200)]
    content = encode([complete(make_row())] if table == "trial" else reports, schema)
    for length in {*range(0, len(content), 97), *range(len(content) - 40, len(content))}:
        with pytest.raises(UnreadableError):
            decode(content[:length], schema)


def rewritten(content: bytes, metadata: dict[bytes, bytes], drop: tuple[str, ...] = (), **extra: Any) -> bytes:
    """The same rows as another version of pixeltune would have written them."""
    table = pq.read_table(pa.BufferReader(content)).drop_columns(list(drop))
    for name, value in extra.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(sink.getvalue())


OURS = {VERSION_KEY: b"1", TABLE_KEY: b"trials"}


def test_columns_that_an_older_file_lacks_are_null_and_unknown_ones_are_left_out() -> None:
    content = rewritten(encode([complete(make_row(reason="x"))], TRIAL_SCHEMA), OURS, ("reason",), from_tomorrow=1)
    [back] = decode(content, TRIAL_SCHEMA)
    assert back["reason"] is None
    assert list(back) == TRIAL_SCHEMA.names
    assert back["started_at"] == NOW


@pytest.mark.parametrize(
    ("metadata", "drop", "complaint"),
    [
        ({VERSION_KEY: b"2", TABLE_KEY: b"trials"}, (), "schema version 2"),
        ({VERSION_KEY: b"1", TABLE_KEY: b"curves"}, (), "no table of trials"),
        ({}, (), "no table of trials"),
        (OURS, ("status",), "lacks the column status"),
    ],
)
def test_newer_and_foreign_files_are_unreadable(
    metadata: dict[bytes, bytes], drop: tuple[str, ...], complaint: str
) -> None:
    content = rewritten(encode([complete(make_row())], TRIAL_SCHEMA), metadata, drop)
    with pytest.raises(UnreadableError, match=complaint):
        decode(content, TRIAL_SCHEMA)
