"""Machines that are taken away: a trial sees that its node is drained, and ends with the Ray that started it."""

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
    """Ids of nodes on which nothing more is started; none where the cluster's head does not answer."""
    from ray._private import worker

    try:
        return set(worker.global_worker.gcs_client.get_draining_nodes(timeout=_ANSWER_SECONDS))
    except Exception:  # of many kinds; whoever asks will ask again
        return set()


class PreemptionMonitor:
    """Looks in the background of a trial's process once a second; `is_taken` costs nothing.

    Where the node's Ray is gone altogether, the process ends.
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
        """Whether the node is being drained."""
        return self._is_taken

    def require_node(self) -> None:
        """NodePreemptedError where it is: a reused process may lie on such a node."""
        if self._is_taken:
            raise NodePreemptedError("the machine under this trial is taken away")

    def _look(self) -> None:
        while not (self._is_taken or self._done.wait(_LOOK_SECONDS)):
            self._is_taken = self._node in draining_nodes()


@cache
def end_with_parent() -> None:
    """End this process, as if by SIGKILL, when the one that started it is gone; once is enough.

    A raylet that was killed keeps its process id for as long as nobody waits for what is left of it: in a container
    whose first process waits for none, a trial was seen to train on after its launcher was killed, and a GPU would be
    held by it.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="pixeltune-parent-watch").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
