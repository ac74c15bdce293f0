"""The `pixeltune` command: one file a verb, named as the verb.

entry, output              the outermost step: missing packages, and output that must not get lost
common                     what verbs share: options, exit codes, writing files
trial_ref                  SEARCH/TRIAL on the command line, and the images of that trial
search_summary             what is printed when a search has ended
dry_run, submit            `--dry-run`, and `--cluster`: a search as a job
progress_bar               the progress of network calls
"""

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
        audit,
        cluster,
        columns,
        compact,
        compare,
        complete,
        compress,
        config,
        decompress,
        doctor,
        evaluate,
        export,
        final,
        paper,
        report,
        rerun,
        sample,
        search,
        show,
        status,
        train,
        verify,
        verify_bits,
    )
    from pixeltune.cli.common import Parser

    parser = Parser(prog="pixeltune", description="Search and train PixelCNN-family density models.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    searching = (search, status, show, doctor, train, final, report, paper, verify)
    using = (evaluate, audit, sample, complete, compress, decompress, verify_bits, compare, export, rerun)
    for verb in (*searching, *using, cluster, compact, columns, config):
        verb.add_verb(verbs)
    return parser
