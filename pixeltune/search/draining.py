"""Whether the node under a trial is about to be taken away, as Ray knows it from whoever drains it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import ray

from pixeltune.errors import NodeTakenError
from pixeltune.search.orphans import end_with_parent

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 5


def draining_nodes() -> set[str]:
    """Ids of nodes on which nothing more is started; none where the cluster's head does not answer."""
    from ray._private import worker

    try:
        return set(worker.global_worker.gcs_client.get_draining_nodes(timeout=_ANSWER_SECONDS))
    except Exception:  # of many kinds; whoever asks will ask again
        return set()


class NodeWatch:
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
        """NodeTakenError where it is: a reused process may lie on such a node."""
        if self._is_taken:
            raise NodeTakenError("the machine under this trial is taken away")

    def _look(self) -> None:
        while not (self._is_taken or self._done.wait(_LOOK_SECONDS)):
            self._is_taken = self._node in draining_nodes()
