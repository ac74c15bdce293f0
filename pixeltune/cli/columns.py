"""`pixeltune columns`: every column of the results with its type, unit and meaning, as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from pixeltune.cli.common import EXIT_OK, say


def add_verb(verbs: Any) -> None:
    """Add `pixeltune columns`."""
    parser = verbs.add_parser(
        "columns",
        help="every column of the results: type, unit, meaning",
        examples=("pixeltune columns", "pixeltune columns > columns.md"),
    )
    parser.set_defaults(verb=show_columns)


def show_columns(_options: argparse.Namespace) -> int:
    """Print the reference that docs/results.md contains."""
    for line in reference():
        say(line)
    return EXIT_OK


def reference() -> Iterator[str]:
    """Return a table of columns for each table of the results, made from its schema."""
    from pixeltune.results.dataframes import dtype_names
    from pixeltune.results.schema import CURVE_SCHEMA, IMAGE_SCHEMA, TRIAL_SCHEMA, Status

    for call, what, schema in (
        ("read_results", "a row a trial", TRIAL_SCHEMA),
        ("read_curves", "a row a report", CURVE_SCHEMA),
        ("read_images", "a row a test image of a final run", IMAGE_SCHEMA),
    ):
        dtypes = dtype_names(schema)
        yield f"### `pt.{call}`: {what}"
        yield ""
        yield "| column | in pandas | in Parquet | unit | meaning |"
        yield "|---|---|---|---|---|"
        for field in schema:
            words = {name.decode(): value.decode() for name, value in field.metadata.items()}
            empty = "" if field.nullable else ", never empty"
            meaning = words["description"].replace("|", "\\|")
            yield f"| `{field.name}` | {dtypes[field.name]} | {field.type}{empty} | {words['unit']} | {meaning} |"
        yield ""
    yield f"`status` is one of {', '.join(f'`{status}`' for status in Status)}."
