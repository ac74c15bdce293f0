"""Rows to Parquet bytes and back, strictly against a schema. No pandas here."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixeltune.errors import StoreError
from pixeltune.results.schema import SCHEMA_VERSION, TABLE_KEY, VERSION_KEY, Status

Row = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnreadableError(Exception):
    """Bytes that are no table of ours: cut short, foreign, or of a newer version."""


def encode(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """A Parquet file of `rows`; an unknown column, or a value of another type than its column's, is a StoreError."""
    checked = [_checked(row, schema) for row in rows]
    bare = pa.schema([field.remove_metadata() for field in schema], schema.metadata)
    try:
        table = pa.Table.from_pylist(checked, schema=bare)
    except (pa.ArrowException, OverflowError) as error:
        raise StoreError(f"a row must fit the columns of the results, but {str(error).splitlines()[0]}") from error
    sink = pa.BufferOutputStream()
    # One row in 100 columns: dictionaries, statistics, compression and Arrow's copy of the schema each cost more than
    # they save. Together they make the file 4 times larger and 3 times slower to read.
    compression = "zstd" if len(rows) > 1 else "none"
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(sink, bare, compression=compression, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(schema.metadata)
    return bytes(sink.getvalue())


def decode(content: bytes, schema: pa.Schema) -> list[Row]:
    """The rows of a file of `encode`, every column of `schema` in each; UnreadableError where it is none."""
    return to_rows(decode_table(content, schema))


def decode_table(content: bytes, schema: pa.Schema) -> pa.Table:
    """The same as an Arrow table: columns that the file lacks are null, those unknown here are left out."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _require_ours(file.metadata.metadata or {}, schema)
        table = file.read(use_threads=False)
        if table.schema.equals(schema):
            return table
        return pa.Table.from_arrays([_column(table, field) for field in schema], schema=schema)
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise UnreadableError(_first_line(error)) from error


def to_rows(table: pa.Table) -> list[Row]:
    """A table as dictionaries. Arrow's own conversion of timestamps imports pandas, so they go by way of integers."""
    lists = {field.name: _values(table[field.name], field.type) for field in table.schema}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _values(column: pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    if not pa.types.is_timestamp(kind):
        return list(column.to_pylist())
    microseconds = column.cast(pa.int64()).to_pylist()
    return [None if value is None else _EPOCH + timedelta(microseconds=value) for value in microseconds]


def _column(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name in table.schema.names:
        return table[field.name].cast(field.type)
    if not field.nullable:
        raise ValueError(f"it lacks the column {field.name}")
    return pa.nulls(table.num_rows, field.type)


def _require_ours(metadata: Mapping[bytes, bytes], schema: pa.Schema) -> None:
    if metadata.get(TABLE_KEY) != schema.metadata[TABLE_KEY]:
        raise UnreadableError(f"it is no table of {schema.metadata[TABLE_KEY].decode()} by pixeltune")
    version = int(metadata.get(VERSION_KEY, b"0"))
    if not 1 <= version <= SCHEMA_VERSION:
        raise UnreadableError(f"it has schema version {version} and this pixeltune reads up to {SCHEMA_VERSION}")


def _checked(row: Mapping[str, Any], schema: pa.Schema) -> Row:
    for name in row:
        if name not in schema.names:
            raise _unknown_column(name, schema.names)
    return {field.name: _fitting(field, row.get(field.name)) for field in schema}


def _fitting(field: pa.Field, value: Any) -> Any:
    if value is None:
        if not field.nullable:
            raise StoreError(f"`{field.name}` must be in every row, but got a row without it")
        return None
    rule = _broken_rule(field, value)
    if rule:
        raise StoreError(f"`{field.name}` must be {rule}, but got {value!r}")
    # Text of other programs may hold half characters, which UTF-8 cannot.
    return str(value).encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _broken_rule(field: pa.Field, value: Any) -> str:
    """The rule of the field's type that `value` breaks, or ""."""
    kind = field.type
    is_bool = type(value).__name__ in ("bool", "bool_")
    if pa.types.is_boolean(kind):
        return "" if is_bool else "true or false"
    if pa.types.is_integer(kind):
        return "" if isinstance(value, numbers.Integral) and not is_bool else "an integer"
    if pa.types.is_floating(kind):
        is_number = isinstance(value, numbers.Real) and not is_bool and math.isfinite(value)
        return "" if is_number else "a finite number"
    if pa.types.is_timestamp(kind):
        return "" if isinstance(value, datetime) and value.tzinfo is not None else "a time with a time zone"
    if field.name == "status" and value not in set(Status):
        return f"one of {', '.join(Status)}"
    return "" if isinstance(value, str) else "text"


def _unknown_column(name: str, known: Sequence[str]) -> StoreError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else "; see pixeltune.results.schema.COLUMNS"
    return StoreError(f"unknown column `{name}`{hint}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
