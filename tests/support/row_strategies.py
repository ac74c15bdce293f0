"""Strategies that draw any row of a table of the results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from pixeltune.results.schema import Status


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Any value that a column of this type may hold."""
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_integer(kind):
        return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False, allow_infinity=False)
    if pa.types.is_timestamp(kind):
        return st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


_OWN = st.none() | st.integers(1, 9).map(lambda channels: f'{{"model.channels": {channels}}}')
"""Text of the column whose content is checked, with a key that has a column."""


def rows_of(schema: pa.Schema, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any row of a schema: required columns always, the others or null."""
    given = {"status": st.sampled_from(list(Status)).map(str), "search": st.just("tiny"), "own_keys": _OWN} | fixed
    required = {field.name: given.get(field.name, values_of(field.type)) for field in schema if not field.nullable}
    optional = {field.name: st.none() | values_of(field.type) for field in schema if field.nullable}
    return st.fixed_dictionaries(required, optional={name: given.get(name, value) for name, value in optional.items()})
