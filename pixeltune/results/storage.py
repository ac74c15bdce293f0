"""The storage that a command uses where none is named, and how a printed command names another."""

from __future__ import annotations

import os
import shlex

from pixeltune.files import Location, require_location

COMMAND = "PIXELTUNE_COMMAND"
"""Set in jobs that `--cluster` submitted: the user's command line, which messages show as the one to run again."""


def storage_words(storage: str) -> str:
    """Return the option that a printed command needs for this storage; "" for the default.

    A job's output is read where it was submitted, which has its own default.
    """
    is_default = storage == default_storage() and COMMAND not in os.environ
    return "" if is_default else f" --storage {shlex.quote(storage)}"


def storage_or_default(storage: Location | None) -> str:
    """Return a storage as text; that of commands without `--storage` if it is None."""
    return default_storage() if storage is None else require_location(storage)


def default_storage() -> str:
    """Return the storage of commands without `--storage`."""
    return os.environ.get("PIXELTUNE_STORAGE") or "results"
