"""The storage that a command uses where none is named, and how a printed command names another."""

from __future__ import annotations

import os
import shlex

COMMAND = "PIXELTUNE_COMMAND"
"""Set in jobs that `--cluster` submitted: the user's command line, which messages show as the one to run again."""


def storage_words(storage: str) -> str:
    """Return the option that a printed command needs for this storage; "" for the default.

    A job's output is read where it was submitted, which has its own default.
    """
    is_default = storage == default_storage() and COMMAND not in os.environ
    return "" if is_default else f" --storage {shlex.quote(storage)}"


def default_storage() -> str:
    """Return the storage of commands without `--storage`."""
    return os.environ.get("PIXELTUNE_STORAGE") or "results"
