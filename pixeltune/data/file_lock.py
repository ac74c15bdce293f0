"""A lock between the processes of one node, so that they do not fetch the same set at once."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pixeltune.errors import MissingPackageError
from pixeltune.files import try_lock

_PATIENCE_SECONDS = 1800.0
_SAID_AFTER_SECONDS = 2.0
_LEFTOVER_SECONDS = 86_400.0
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def node_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold `path` against other processes of this node; a process that dies lets go, and nobody waits for ever.

    doing: what its holder does, such as "fetches cifar10"; said where it takes a while.
    """
    with path.open("ab") as stream:
        began, said = time.monotonic(), False
        while not _try_lock(stream.fileno()) and time.monotonic() - began < _PATIENCE_SECONDS:
            if not said and time.monotonic() - began > _SAID_AFTER_SECONDS:
                _log.warning("waiting for another process of this machine, which %s (%s)", doing, path)
                said = True
            time.sleep(0.05)
        yield


def remove_leftovers(folder: Path, name: str) -> None:
    """Parts `.part-NAME-…` of processes that died; young ones may be at work where locks do not hold."""
    for leftover in folder.glob(f".part-{name}-*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(leftover)


def _try_lock(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except (MissingPackageError, OSError):
        return True  # no such locks here: go on without, the rename decides
