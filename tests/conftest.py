"""What holds for all tests: one thread a process, all cores, no state of this machine's user, and what may be missing."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in processes that tests start

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process a core; none of its own for a file or two, which are done before another has started."""
    named = [argument for argument in config.args if ".py" in argument]
    if named and len(named) == len(config.args) <= 2:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what is imported out of every later garbage collection: each trial starts with a full one."""
    gc.collect()
    gc.freeze()
