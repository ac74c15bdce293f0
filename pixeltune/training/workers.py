"""One process or several that train one model: who I am, and what we agree on."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

# Imported before a group is up: DistributedDataParallel imports it, and its functions keep the group of that moment.
import torch.distributed.nn.functional


@dataclass(frozen=True)
class Workers:
    """This process among those that train together. rank: 0 … world - 1; one process alone is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Workers:
        """Read from torch.distributed where a group is up."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def my_part(self, batch: np.ndarray) -> np.ndarray:
        """Return this worker's equal, contiguous part of a global batch."""
        size = len(batch) // self.world
        return batch[self.rank * size : (self.rank + 1) * size]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over the workers, on all of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def each(self, value: torch.Tensor) -> list[float]:
        """Return a number of each worker, by rank, on all of them."""
        values = value.new_zeros(self.world)
        values[self.rank] = value
        return [float(one) for one in self.sum(values).tolist()]

    def any(self, flag: bool) -> bool:
        """Return whether it holds on one of them at least, on all of them."""
        return flag if self.world == 1 else not self.least(int(not flag))

    def least(self, value: int) -> int:
        """Return the smallest of the workers' values, on all of them."""
        if self.world == 1:
            return value
        least = torch.tensor([value], device=best_device(self.rank))
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        return int(least.item())

    def as_first(self, choice: bool) -> bool:
        """Return the choice of rank 0, on all workers."""
        if self.world == 1:
            return choice
        flag = torch.tensor([choice], dtype=torch.uint8, device=best_device(self.rank))
        dist.broadcast(flag, src=0)
        return bool(flag.item())


def best_device(rank: int = 0) -> torch.device:
    """Return the GPU of this process, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def process_group() -> Iterator[Workers]:
    """Yield the workers that torchrun started, by the environment variables it sets; one process alone without it.

    At its end the group is gone, with its threads: one that still lives when Python ends may abort the process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Workers()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Workers.current()
    finally:
        gc.collect()  # a training that is over keeps the group until then
        dist.destroy_process_group()
