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
    """Hold `path` against other processes of this node; a process that dies releases it, and waiting has a limit.

    doing: what its holder does, such as "fetches cifar10"; logged if it takes a while.
    """
    with path.open("ab") as stream:
        began, is_logged = time.monotonic(), False
        while not _try_lock(stream.fileno()) and time.monotonic() - began < _PATIENCE_SECONDS:
            if not is_logged and time.monotonic() - began > _SAID_AFTER_SECONDS:
                _log.warning("waiting for another process of this machine, which %s (%s)", doing, path)
                is_logged = True
            time.sleep(0.05)
        yield


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove old `.part-NAME-…` of processes that died; where locks do not work, new ones may be in use."""
    for leftover in folder.glob(f".part-{name}-*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(leftover)


def _try_lock(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except (MissingPackageError, OSError):
        return True  # no such locks here: continue without one, the rename decides
