"""The `pixeltune` command: one verb a task, one small file a group of verbs."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run one verb; the exit code."""
    from pixeltune.cli import codec, compare, config, doctor, final, model, pictures, search, share, show, status, train
    from pixeltune.cli.app import Parser, run

    parser = Parser(prog="pixeltune", description="Search and train PixelCNN-family density models.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for group in (search, status, show, doctor, train, final, model, pictures, codec, compare, share, config):
        group.add_verbs(verbs)
    options = parser.parse_args(argv)
    return run(options.verb, options)
