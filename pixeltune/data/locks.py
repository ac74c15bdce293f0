"""A lock between the processes of one node, so that they do not decode or fetch the same set at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

_PATIENCE_SECONDS = 1800.0


@contextlib.contextmanager
def node_lock(path: Path) -> Iterator[None]:
    """Hold `path` against other processes of this node; a process that dies lets go, and nobody waits for ever."""
    with path.open("a") as stream:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _try_lock(stream.fileno()) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True  # no such locks here: go on without, the rename decides
    return True
