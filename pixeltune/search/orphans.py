"""A trial's process ends with the Ray that started it."""

from __future__ import annotations

import os
import threading
import time
from functools import cache

_LOOK_SECONDS = 1.0


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
