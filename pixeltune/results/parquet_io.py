"""Conversion of rows to Parquet bytes and back, checked strictly against a schema. No pandas here."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixeltune import digest
from pixeltune.config import DISCRIMINATORS
from pixeltune.errors import StoreError, did_you_mean, first_line
from pixeltune.results.own_keys import own_keys_of, parse_own_keys, spread
from pixeltune.results.schema import OWN_KEYS, SCHEMA_VERSION, TABLE_KEY, VERSION_KEY, Status

Row = dict[str, Any]

DICTIONARY_COLUMNS = pa.dictionary(pa.int32(), pa.string())
"""The type of a text column whose values repeat."""

_FEW_ROWS = 1000
_ROWS_IN_A_GROUP = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnreadableError(Exception):
    """Error for bytes that are not a table of pixeltune's: cut short, foreign, or of a newer version."""


class NewerError(UnreadableError):
    """Error for a table of a newer version, whose columns this version does not know."""


def encode(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Return a Parquet file of `rows`; StoreError for an unknown column or a value of another type than its column."""
    checked = [_checked(row, schema) for row in rows]
    bare = pa.schema([field.remove_metadata() for field in schema], schema.metadata)
    try:
        table = pa.Table.from_pylist(checked, schema=bare)
    except (pa.ArrowException, OverflowError) as error:
        raise StoreError(f"a row must fit the columns of the results, but {first_line(error)}") from error
    sink = pa.BufferOutputStream()
    # One row in 100 columns: dictionaries, statistics, compression and Arrow's copy of the schema each cost more than
    # they save. Together they make the file 4 times larger and 3 times slower to read.
    compression = "zstd" if len(rows) > 1 else "none"
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(sink, bare, compression=compression, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(_file_metadata(schema))
    return digest.seal(sink.getvalue().to_pybytes())


def encode_table(table: pa.Table, schema: pa.Schema) -> bytes:
    """Return a Parquet file of many rows: text as dictionaries, and statistics to find a trial's row groups."""
    bare = pa.schema([field.remove_metadata() for field in schema], schema.metadata)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    sink = pa.BufferOutputStream()
    options = {"compression": "zstd", "use_dictionary": texts, "write_statistics": ["trial"], "store_schema": False}
    with pq.ParquetWriter(sink, bare, **options) as writer:
        writer.write_table(table.cast(bare), row_group_size=_ROWS_IN_A_GROUP)
        writer.add_key_value_metadata(_file_metadata(schema))
    return digest.seal(sink.getvalue().to_pybytes())


def decode(content: bytes, schema: pa.Schema) -> list[Row]:
    """Return the rows of a file of `encode`, with every column of `schema`; UnreadableError if it is not one."""
    return to_rows(decode_table(content, schema))


def decode_table(content: bytes, schema: pa.Schema) -> pa.Table:
    """Return the same as an Arrow table: columns that the file lacks are null, unknown ones are left out."""
    return TableFile(content, schema).read()


class TableFile:
    """An opened file of `encode` or `encode_table`; UnreadableError where it is none of `schema`.

    Attributes:
        is_current: Whether it has this version's schema and no unknown column, so that rewriting it loses nothing.
        is_sealed: Whether it has a digest, which matched; files of earlier versions have none, and damage in them may
            not be detected.

    Args:
        content: The bytes of the file.
        schema: The schema of its table.
        dictionaries: Text columns to read as dictionaries.
    """

    def __init__(self, content: bytes, schema: pa.Schema, dictionaries: Collection[str] = ()) -> None:
        self._schema = schema
        self._dictionaries = dictionaries
        self.is_sealed = False
        with _damage():
            self.is_sealed = digest.verify(content)
        with _damage(is_sealed=self.is_sealed):
            self._file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(dictionaries))
            metadata = self._file.metadata.metadata or {}
            if digest.KEY.encode() in metadata and not self.is_sealed:
                raise digest.DigestError
            self.version = _require_ours(metadata, schema)
            self._names = self._file.schema_arrow.names
            for name in set(schema.names).difference(self._names):
                if not schema.field(name).nullable:
                    raise ValueError(f"it lacks the column {name}")

    @property
    def is_current(self) -> bool:
        """Return whether rewriting the file with this version loses nothing; see the class."""
        return self.version == SCHEMA_VERSION and set(self._names) <= set(self._schema.names)

    def read(self, columns: Collection[str] | None = None, trial: str | None = None) -> pa.Table:
        """Return the rows with all columns of the schema or the given ones, of all trials or of one."""
        is_plain = columns is None and not self._dictionaries
        target = self._schema if is_plain else view_of(self._schema, columns, self._dictionaries)
        with _damage(is_sealed=self.is_sealed):
            table = self._file.read_row_groups(
                self._groups_that_may_hold(trial),
                columns=None if columns is None else [name for name in target.names if name in self._names],
                use_threads=self._file.metadata.num_rows > _FEW_ROWS,
            )
            if trial is not None:
                table = table.filter(pc.equal(table["trial"], text_array([trial])[0]))
            if not table.schema.equals(target):
                table = pa.Table.from_arrays([_column(table, field) for field in target], schema=target)
            if not self.is_sealed:
                _require_sound(table)
            if OWN_KEYS in table.schema.names:
                for text in pc.unique(table[OWN_KEYS].cast(pa.string())).to_pylist():
                    parse_own_keys(text)
            return table

    def _groups_that_may_hold(self, trial: str | None) -> list[int]:
        groups = range(self._file.metadata.num_row_groups)
        return [group for group in groups if trial is None or self._may_hold(group, trial)]

    def _may_hold(self, group: int, trial: str) -> bool:
        statistics = self._file.metadata.row_group(group).column(self._names.index("trial")).statistics
        return statistics is None or not statistics.has_min_max or statistics.min <= trial <= statistics.max


def view_of(schema: pa.Schema, columns: Collection[str] | None, dictionaries: Collection[str]) -> pa.Schema:
    """Return a schema with the given columns, or all of them; those in `dictionaries` as dictionaries."""
    chosen = [field for field in schema if columns is None or field.name in columns]
    return pa.schema([field.with_type(DICTIONARY_COLUMNS) if field.name in dictionaries else field for field in chosen])


def to_rows(table: pa.Table) -> list[Row]:
    """Return a table as dictionaries, with the keys that only classes of the user's own have.

    Arrow's conversion of timestamps imports pandas, so they go through integers.
    """
    lists = {field.name: _values(table[field.name], field.type) for field in table.schema}
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    if OWN_KEYS in lists:
        spread(rows)
    return rows


def text_array(texts: Iterable[str]) -> pa.Array:
    """Return an Arrow array of text. `pa.array` of a list, and `pa.scalar`, import pandas, which takes a second."""
    builder = pa.lib.StringBuilder()
    builder.append_values(list(texts))
    return builder.finish()


def _values(column: pa.ChunkedArray, kind: pa.DataType) -> list[Any]:
    if not pa.types.is_timestamp(kind):
        return list(column.to_pylist())
    return [_time(value) for value in column.cast(pa.int64()).to_pylist()]


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def _column(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name in table.schema.names:
        return table[field.name].cast(field.type)
    return pa.nulls(table.num_rows, field.type)


@contextlib.contextmanager
def _damage(*, is_sealed: bool = False) -> Iterator[None]:
    """Raise UnreadableError for errors of pyarrow, which on damaged bytes may be of almost any kind.

    A file whose digest matched is not damaged: a MemoryError on it is raised as it is.
    """
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:
        if is_sealed and isinstance(error, MemoryError):
            raise
        raise UnreadableError(first_line(error)) from error


def _require_sound(table: pa.Table) -> None:
    """Refuse values that `encode` never writes, such as text that is not UTF-8, in a file without a digest."""
    table.validate(full=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            for bound in pc.min_max(column.cast(pa.int64())).as_py().values():
                _time(bound)
        elif pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column), min_count=0).as_py():
            raise ValueError(f"`{name}` is not finite")
        elif name == "status" and (unknown := set(pc.unique(column).to_pylist()) - set(Status)):
            raise ValueError(f"`status` is {unknown.pop()!r}")


def _file_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Return the metadata of a file, with room for its digest."""
    return {**schema.metadata, digest.KEY.encode(): digest.PLACEHOLDER.encode()}


def _require_ours(metadata: Mapping[bytes, bytes], schema: pa.Schema) -> int:
    """Return the version of the file; UnreadableError where it is no table of `schema`."""
    if metadata.get(TABLE_KEY) != schema.metadata[TABLE_KEY]:
        raise UnreadableError(f"it is no table of {schema.metadata[TABLE_KEY].decode()} by pixeltune")
    version = int(metadata.get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise NewerError(
            f"it has schema version {version} and this pixeltune reads up to {SCHEMA_VERSION}; take a newer one"
        )
    if version < 1:
        raise UnreadableError("it has no schema version")
    return version


def _checked(row: Mapping[str, Any], schema: pa.Schema) -> Row:
    try:
        own: Mapping[str, Any] = own_keys_of(row) if OWN_KEYS in schema.names else {}
    except (ValueError, TypeError) as error:
        raise StoreError(f"`{OWN_KEYS}` must be JSON of the keys of a family or a likelihood, but {error}") from error
    for name, value in row.items():
        # The column of all keys has those without a column; a row of another class has None for them.
        if name not in schema.names and not (name in own and own[name] == value) and not _is_others(name, value):
            raise _unknown_column(name, schema.names)
    return {field.name: _fitting(field, row.get(field.name)) for field in schema}


def _is_others(name: str, value: Any) -> bool:
    """Return whether a column is empty because another row's class, of the user's own, has it."""
    return value is None and name.partition(".")[0] in DISCRIMINATORS


def _fitting(field: pa.Field, value: Any) -> Any:
    if value is None:
        if not field.nullable:
            raise StoreError(f"`{field.name}` must be in every row, but got a row without it")
        return None
    rule = _broken_rule(field, value)
    if rule:
        raise StoreError(f"`{field.name}` must be {rule}, but got {value!r}")
    # Text from other programs may hold lone surrogates, which UTF-8 cannot encode.
    return str(value).encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _broken_rule(field: pa.Field, value: Any) -> str:
    """Return the rule of the field's type that `value` breaks, or ""."""
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
    hint = did_you_mean(name, known, as_code=True) or "see pixeltune.results.schema.COLUMNS"
    return StoreError(f"unknown column `{name}`; {hint}")
