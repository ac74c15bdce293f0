"""Nodes that are taken away, and trials whose parent process is gone."""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from types import TracebackType
from typing import Self

import ray

from pixeltune.errors import NodePreemptedError

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 5


def draining_nodes() -> set[str]:
    """Return the ids of nodes that are being drained; none if the cluster's head does not answer."""
    from ray._private import worker

    try:
        return set(worker.global_worker.gcs_client.get_draining_nodes(timeout=_ANSWER_SECONDS))
    except Exception:  # of many kinds; the caller asks again
        return set()


class PreemptionMonitor:
    """A check once a second in the background of a trial's process; reading `is_taken` costs nothing.

    If the node's Ray is gone, the process ends.
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._is_taken = self._node in draining_nodes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="pixeltune-node-watch")

    def __enter__(self) -> Self:
        end_with_parent()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()

    def is_taken(self) -> bool:
        """Return whether the node is being drained."""
        return self._is_taken

    def require_node(self) -> None:
        """Raise NodePreemptedError if the node is being drained: a reused process may be on such a node."""
        if self._is_taken:
            raise NodePreemptedError("the machine under this trial is taken away")

    def _look(self) -> None:
        while not (self._is_taken or self._done.wait(_LOOK_SECONDS)):
            self._is_taken = self._node in draining_nodes()


@cache
def end_with_parent() -> None:
    """End this process, as if by SIGKILL, when its parent is gone; repeated calls have no effect.

    A killed raylet can remain as a zombie if PID 1 of a container does not reap children; trials then kept training
    after their launcher was killed, and would have held a GPU. So this process exits when the parent PID changes.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="pixeltune-parent-watch").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
