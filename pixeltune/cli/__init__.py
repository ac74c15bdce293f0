"""The `pixeltune` command: one file a verb, named as the verb.

entry, output              the outermost step: missing packages, and output to any terminal
common                     shared by the verbs: options, exit codes, writing files
trial_ref                  the model of a trial on a device, and the images of its data
tables                     tables that fit a terminal
search_summary             what is printed when a search has ended
proposals                  the options for what a search tries
dry_run, submit            `--dry-run`, and `--cluster`: a search as a job
progress_bar               the progress of network calls
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltune.cli.common import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one verb and return the exit code."""
    from pixeltune.cli.entry import run_checked

    def run_verb() -> int:
        from pixeltune.cli.common import parse, run

        if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
            import argcomplete

            argcomplete.autocomplete(command_line())
        options = parse(command_line(), argv)
        return run(options.verb, options)

    return run_checked("pixeltune", run_verb)


def command_line() -> Parser:
    """Return the parser of all verbs.

    The modules of the verbs import heavy packages inside their functions, so that `--help` answers at once.
    """
    from pixeltune.cli import (
        audit,
        cluster,
        columns,
        compact,
        compare,
        complete,
        completion,
        compress,
        config,
        continue_,
        dashboard,
        decompress,
        doctor,
        evaluate,
        export,
        final,
        leaderboard,
        paper,
        report,
        rerun,
        sample,
        search,
        show,
        status,
        stop,
        train,
        verify,
        verify_bits,
    )
    from pixeltune.cli import list as list_
    from pixeltune.cli.common import ShowVersion, VerbsParser

    groups = {
        "search": (search, final, doctor, status, stop, cluster),
        "results": (list_, leaderboard, show, compare, report, dashboard, paper, verify, compact),
        "one model": (train, rerun, continue_, evaluate, audit, sample, complete, export),
        "coding": (compress, decompress, verify_bits),
        "reference": (config, columns, completion),
    }
    parser = VerbsParser(prog="pixeltune", description="Search and train PixelCNN-family density models.")
    parser.add_argument("--version", action=ShowVersion)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for title, modules in groups.items():
        for module in modules:
            module.add_verb(verbs)
        parser.add_group(title, len(modules))
    return parser
