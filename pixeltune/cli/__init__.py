"""The `pixeltune` command: one verb a task, one small file a group of verbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltune.cli.common import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one verb and return the exit code."""
    from pixeltune.cli.entry import run_checked

    def run_verb() -> int:
        from pixeltune.cli.common import parse, run

        options = parse(command_line(), argv)
        return run(options.verb, options)

    return run_checked("pixeltune", run_verb)


def command_line() -> Parser:
    """Return the parser of all verbs.

    The modules of the verbs import what does the work inside of their functions, so that `--help` answers at once.
    """
    from pixeltune.cli import (
        cluster,
        codec,
        columns,
        compact,
        compare,
        config,
        doctor,
        final,
        model,
        paper,
        pictures,
        report,
        search,
        share,
        show,
        status,
        train,
    )
    from pixeltune.cli.common import Parser

    parser = Parser(prog="pixeltune", description="Search and train PixelCNN-family density models.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    first = (search, status, show, doctor, train, final, report, paper, model, pictures, codec, compare, share)
    for group in (*first, cluster, compact, columns, config):
        group.add_verbs(verbs)
    return parser
