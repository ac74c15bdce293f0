"""The one schema of all searches, as Arrow: fixed columns, and one for every dotted key of every family.

The schema only grows: a new column needs no new version, and readers fill it with null in older files. The version
counts up when the meaning of a column changes, so that an older pixeltune leaves such files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pyarrow as pa

from pixeltune.results.columns import IDENTITY_COLUMNS, IMAGE_COLUMNS, Column, curve_columns, trial_columns

SCHEMA_VERSION = 1

VERSION_KEY = b"pixeltune.schema_version"
TABLE_KEY = b"pixeltune.table"


class Status(StrEnum):
    """How a trial's attempt stands."""

    RUNNING = "running"
    """Under way, or its launcher died without a word."""
    FINISHED = "finished"
    """Trained to its end."""
    PRUNED = "pruned"
    """Stopped by the scheduler at a rung, its curve true up to there."""
    DIVERGED = "diverged"
    """Training met a value that is not finite; the weights before that step are kept."""
    OOM = "oom"
    """Out of memory, met or foreseen; on a shared GPU it is tried once more, alone, when the other trials are done."""
    FAILED = "failed"
    """Ended by an error that its retries met again."""
    INTERRUPTED = "interrupted"
    """Stopped from outside: Ctrl-C, a lost node, a budget; continues from its checkpoint."""
    REJECTED = "rejected"
    """The audit found that it is not the distribution it claims to be; never ranked."""


TRIAL_COLUMNS: dict[str, Column] = trial_columns()
CURVE_COLUMNS: dict[str, Column] = IDENTITY_COLUMNS | curve_columns()
COLUMNS: dict[str, Column] = IMAGE_COLUMNS | CURVE_COLUMNS | TRIAL_COLUMNS
"""Every column of the three tables."""


def _schema(table: str, columns: Mapping[str, Column]) -> pa.Schema:
    fields = [
        pa.field(name, column.type, column.nullable, {"description": column.description, "unit": column.unit})
        for name, column in columns.items()
    ]
    return pa.schema(fields, {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()})


TRIAL_SCHEMA: pa.Schema = _schema("trials", TRIAL_COLUMNS)
CURVE_SCHEMA: pa.Schema = _schema("curves", CURVE_COLUMNS)
IMAGE_SCHEMA: pa.Schema = _schema("images", IMAGE_COLUMNS)
