"""`pixeltune columns`: every column of the results with its type, unit and meaning; as Markdown in a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, console, say
from pixeltune.cli.tables import TableColumn, print_table

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS = (
    TableColumn(title="column", align="left"),
    TableColumn(title="in pandas", align="left", priority=1),
    TableColumn(title="in Parquet", align="left", priority=3),
    TableColumn(title="unit", align="left", priority=2),
    TableColumn(title="meaning", align="left", least=32),
)


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """A table of the results: the function that reads it, what a row is, and the cells of each of its columns."""

    call: str
    what: str
    rows: list[list[str]]


def add_verb(verbs: Any) -> None:
    """Add `pixeltune columns`."""
    parser = verbs.add_parser(
        "columns",
        help="every column of the results: type, unit, meaning",
        examples=("pixeltune columns", "pixeltune columns > columns.md"),
    )
    parser.set_defaults(verb=show_columns)


def show_columns(_options: argparse.Namespace) -> int:
    """Print tables on a terminal, and else the reference that docs/results.md contains."""
    if sys.stdout.isatty():
        _draw(console())
        return EXIT_OK
    for line in reference():
        say(line)
    return EXIT_OK


def reference() -> Iterator[str]:
    """Yield the lines of a Markdown table for each table of the results, made from its schema."""
    for table in _references():
        yield f"### `{table.call}`: {table.what}"
        yield ""
        yield f"| {' | '.join(column.title for column in _COLUMNS)} |"
        yield f"|{'---|' * len(_COLUMNS)}"
        for name, *types, meaning in table.rows:
            yield f"| `{name}` | {' | '.join(types)} | {meaning.replace('|', chr(92) + '|')} |"
        yield ""
    yield f"`status` is one of {', '.join(f'`{status}`' for status in _statuses())}."


def _draw(out: Console) -> None:
    for table in _references():
        print_table(out, _COLUMNS, table.rows, title=f"{table.call}: {table.what}")
        out.print()
    out.print(f"status is one of {', '.join(_statuses())}.", highlight=False)


def _references() -> Iterator[_Reference]:
    from pixeltune.results.dataframes import dtype_names
    from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, TRIAL_SCHEMA

    for call, what, schema in (
        ("read_results", "a row a trial", TRIAL_SCHEMA),
        ("read_curves", "a row a report", CURVE_SCHEMA),
        ("read_images", "a row a test image of a final run", IMAGE_SCHEMA),
    ):
        dtypes = dtype_names(schema)
        rows = []
        for field in schema:
            words = {name.decode(): value.decode() for name, value in field.metadata.items()}
            empty = "" if field.nullable else ", never empty"
            rows.append([field.name, dtypes[field.name], f"{field.type}{empty}", words["unit"], words["description"]])
        yield _Reference(call=f"pt.{call}", what=what, rows=rows)


def _statuses() -> list[str]:
    from pixeltune.results.schema import Status

    return [str(status) for status in Status]
