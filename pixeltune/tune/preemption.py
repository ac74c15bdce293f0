"""Why a trial ends before its training does: its node is taken away, its launch ends, or its parent process is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeVar

import ray

from pixeltune.errors import NodePreemptedError

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 5
_IN_OURS: dict[str, Any] = {"namespace": b"pixeltune", "timeout": _ANSWER_SECONDS}
T = TypeVar("T")


def draining_nodes() -> set[str]:
    """Return the ids of nodes that are being drained; none if the cluster's head does not answer."""
    return _from_head(lambda head: set(head.get_draining_nodes(timeout=_ANSWER_SECONDS)), set())


def ask_to_end() -> None:
    """Ask all trials of this job to save their state and end; without an answer they keep that of their last report."""
    _from_head(lambda head: head.internal_kv_put(_request(), b"end", overwrite=True, **_IN_OURS), None)


def withdraw() -> None:
    """Withdraw `ask_to_end`, so that a later search of this job can run."""
    _from_head(lambda head: head.internal_kv_del(_request(), del_by_prefix=False, **_IN_OURS), None)


def _is_asked_to_end() -> bool:
    return _from_head(lambda head: bool(head.internal_kv_exists(_request(), **_IN_OURS)), False)


def _from_head(ask: Callable[[Any], T], otherwise: T) -> T:
    """Return what the cluster's head answers; `otherwise` if it does not."""
    from ray._private import worker

    try:
        return ask(worker.global_worker.gcs_client)
    except Exception:  # of many kinds; the caller asks again, or can do without
        return otherwise


def _request() -> bytes:
    return str(ray.get_runtime_context().get_job_id()).encode()


class PreemptionMonitor:
    """A check once a second in the background of a trial's process; reading `is_taken` and `is_asked` costs nothing.

    If the node's Ray is gone, the process ends.
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._is_taken = self._node in draining_nodes()
        self._is_asked = False
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

    def is_asked(self) -> bool:
        """Return whether the launch asks its trials to end."""
        return self._is_asked

    def require_node(self) -> None:
        """Raise NodePreemptedError if the node is being drained: a reused process may be on such a node."""
        if self._is_taken:
            raise NodePreemptedError("the machine under this trial is taken away")

    def _look(self) -> None:
        while not (self._is_taken or self._is_asked or self._done.wait(_LOOK_SECONDS)):
            self._is_taken = self._node in draining_nodes()
            self._is_asked = _is_asked_to_end()


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
