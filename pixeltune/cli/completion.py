"""`pixeltune completion`: completion of verbs, options and searches in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.common import EXIT_OK, say
from pixeltune.packages import require_packages


def add_verb(verbs: Any) -> None:
    """Add `pixeltune completion`."""
    parser = verbs.add_parser(
        "completion",
        help="print what a shell needs to complete the words of pixeltune",
        examples=(
            'eval "$(pixeltune completion bash)"',
            "pixeltune completion fish > ~/.config/fish/completions/pixeltune.fish",
        ),
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell in which you work")
    parser.set_defaults(verb=show_completion)


def show_completion(options: argparse.Namespace) -> int:
    """Print the code that the shell evaluates."""
    require_packages("completion", "argcomplete")
    from argcomplete import shell_integration

    say(shell_integration.shellcode(["pixeltune"], shell=options.shell))
    return EXIT_OK


def complete_searches(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the searches of a local storage whose names begin with `prefix`, for argcomplete."""
    from pathlib import Path

    from pixeltune import files

    storage = parsed_args.storage
    if files.is_uri(storage) or not Path(storage).is_dir():
        return []
    return [path.parent.name for path in Path(storage).glob("*/search.json") if path.parent.name.startswith(prefix)]
