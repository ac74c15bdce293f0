"""A step in several passes, where the memory is too short for its whole batch.

The gradient of a mean over the batch is the sum of its parts' gradients, each divided by the size of the whole, so that
only the order of additions changes: no number does but by rounding, and by the draws of dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.nn.parallel import DistributedDataParallel


def micro_batches(size: int, micro_batch: int | None) -> Iterator[slice]:
    """Yield the rows of each pass over `size` images, in order; the last pass may be smaller. None: all in one."""
    step = min(size, micro_batch or size)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def exchanging(loss: Callable[..., Any], is_last: bool) -> AbstractContextManager[None]:
    """Let workers average their gradients in the last pass of a step only: once for all of its passes."""
    if is_last or not isinstance(loss, DistributedDataParallel):
        return nullcontext()
    waiting: AbstractContextManager[None] = loss.no_sync()
    return waiting
