"""Training images on their way to the device.

    batches = Batches(data, config, workers, device)
    batch = batches.part(images_seen)        # this worker's share of the batch at that place of the stream

Pixels come from one of three places, the same from each:
    Resident  a GPU holds the whole set as uint8, where the memory plan has room for it;
    Mapped    rows of the file's memory map: on a CPU the resident form, as the page cache holds them;
    Reading   reads of a file that memory cannot hold, announced to the operating system some batches ahead.
What is drawn again in each epoch follows from (seed, epoch, index) and is drawn on the device. Nothing waits for a GPU:
what goes there is in pinned memory and is copied without blocking.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixeltune.config import TrialConfig
from pixeltune.data import DataSet, counter_rng
from pixeltune.errors import DataError
from pixeltune.training.augment import draw_binary, flip
from pixeltune.training.data_order import ImageStream
from pixeltune.training.memory import memory_limit
from pixeltune.training.workers import Workers

MAPPED_SHARE = 0.5
"""Share of a machine's memory: a set that takes more is read, as a map waits for every image that is not in memory."""

IMAGES_AHEAD = 128
"""Announced before they are read, at least: more than a disk answers at once (benchmarks/RESULTS.md)."""

_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and labels of a batch.

    x_BCHW: uint8 levels. label_B: int64 classes, or None. position_B: places in the stream, on the CPU.
    """

    x_BCHW: Tensor
    label_B: Tensor | None
    position_B: Tensor

    def __len__(self) -> int:
        return len(self.x_BCHW)

    def __getitem__(self, rows: slice) -> Batch:
        label_B = None if self.label_B is None else self.label_B[rows]
        return Batch(self.x_BCHW[rows], label_B, self.position_B[rows])


class Batches:
    """The batches of a training, in the order of its stream."""

    def __init__(self, data: DataSet, config: TrialConfig, workers: Workers, device: torch.device) -> None:
        self._data, self._config, self._workers, self._device = data, config, workers, device
        self._stream = ImageStream(config, len(data.train))
        self._announced = 0
        self._pixels: Pixels = from_host(data.train.pixels_NCHW, device)

    def keep_on_device(self) -> None:
        """Copy the whole set to the device, and take images from there."""
        self._pixels = Resident(self._data.train.pixels_NCHW, self._device)

    def part(self, start: int) -> Batch:
        """Return this worker's part of the batch at `start` in the stream, a multiple of the batch size."""
        batch = self._load(start, self._workers)
        self._announce(start)
        return batch

    def whole(self, start: int) -> Batch:
        """Return all of that batch."""
        return self._load(start, Workers())

    def _load(self, start: int, workers: Workers) -> Batch:
        indices, epochs = self._places(start, workers)
        x_BCHW, dynamic = self._pixels.take(indices), self._data.dynamic
        if dynamic is not None:
            keys_B = counter_rng.keys(dynamic.seed, "dynamic", epochs, indices)
            x_BCHW = draw_binary(x_BCHW, _sent(keys_B.view(np.int64), self._device), levels=dynamic.levels)
        if self._config.data.flip:
            flipped_B = counter_rng.below(counter_rng.keys(self._config.seed, "flip", epochs, indices), 1, 2)[:, 0] == 1
            x_BCHW = flip(x_BCHW, _sent(flipped_B, self._device))
        labels_N = self._data.train.labels_N
        label_B = None if labels_N is None else _sent(labels_N[indices], self._device)
        positions = start + np.arange(self._config.train.batch_size)
        return Batch(x_BCHW, label_B, torch.from_numpy(workers.my_part(positions)))

    def _places(self, start: int, workers: Workers) -> tuple[np.ndarray, np.ndarray]:
        indices, epochs = self._stream.batch(start, self._config.train.batch_size)
        return workers.my_part(indices), workers.my_part(epochs)

    def _announce(self, start: int) -> None:
        """Announce the batches after the one at `start`: one or more, at least IMAGES_AHEAD images of this worker."""
        size = self._config.train.batch_size
        ahead = -(-IMAGES_AHEAD * self._workers.world // size) * size
        first, end = max(start + size, self._announced), min(start + size + ahead, self._config.train.images)
        for upcoming in range(first, end, size):
            self._pixels.announce(self._places(upcoming, self._workers)[0])
        self._announced = end


# --- Where pixels come from -------------------------------------------------------------------------------------------


class Pixels(Protocol):
    """The training images as they are stored, in grey levels where they are still to be drawn."""

    def take(self, indices: np.ndarray) -> Tensor:
        """Return (B, C, H, W) uint8 on the device, in memory of their own: the images of these indices (B,)."""

    def announce(self, indices: np.ndarray) -> None:
        """Announce that these will be taken soon."""


def from_host(pixels_NCHW: np.ndarray, device: torch.device) -> Pixels:
    """Return a map where the machine's memory holds what is mapped with ease; else reads of its file."""
    memory, place = memory_limit(torch.device("cpu")), _file_of(pixels_NCHW)
    if place is None or memory is None or pixels_NCHW.nbytes <= MAPPED_SHARE * memory:
        return Mapped(pixels_NCHW, device)
    return Reading(*place, pixels_NCHW.shape[1:], device)


class Resident:
    """One tensor on the device."""

    def __init__(self, pixels_NCHW: np.ndarray, device: torch.device) -> None:
        self._device = device
        self._pixels_NCHW = torch.empty(pixels_NCHW.shape, dtype=torch.uint8, device=device)
        step = max(1, _CHUNK_BYTES // pixels_NCHW[0].nbytes)
        for start in range(0, len(pixels_NCHW), step):  # the host holds a chunk, not the set
            self._pixels_NCHW[start : start + step] = torch.from_numpy(np.array(pixels_NCHW[start : start + step]))

    def take(self, indices: np.ndarray) -> Tensor:
        """Gather the images there."""
        return self._pixels_NCHW[_sent(indices, self._device)]

    def announce(self, indices: np.ndarray) -> None:
        """Do nothing: they are there."""


class Mapped:
    """Rows of an array on the host, in memory or mapped."""

    def __init__(self, pixels_NCHW: np.ndarray, device: torch.device) -> None:
        self._pixels_NCHW, self._device = pixels_NCHW, device

    def take(self, indices: np.ndarray) -> Tensor:
        """Copy the images out of it."""
        return _sent(self._pixels_NCHW[indices], self._device)

    def announce(self, indices: np.ndarray) -> None:
        """Do nothing: the page cache is left to itself."""


class Reading:
    """Images of the form (C, H, W) that are stored one after another in a file from `offset` on, each read by one call.

    DataError where that fails. There is no thread: the operating system reads what is announced meanwhile. Systems
    without `posix_fadvise` read without announcement.
    """

    def __init__(self, path: Path, offset: int, form: tuple[int, ...], device: torch.device) -> None:
        self._path, self._offset, self._form, self._device = path, offset, form, device
        self._size = int(np.prod(form))
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def take(self, indices: np.ndarray) -> Tensor:
        """Read one after another."""
        pixels_BCHW = np.empty((len(indices), *self._form), dtype=np.uint8)
        into = pixels_BCHW.reshape(-1).data
        for row, index in enumerate(indices.tolist()):
            self._read(into[row * self._size : (row + 1) * self._size], index)
        return _sent(pixels_BCHW, self._device)

    def announce(self, indices: np.ndarray) -> None:
        """Ask the system to have them in memory, and do not wait for them."""
        if sys.platform == "linux" and hasattr(os, "posix_fadvise"):
            for index in indices.tolist():
                place = self._offset + index * self._size
                os.posix_fadvise(self._descriptor, place, self._size, os.POSIX_FADV_WILLNEED)

    def _read(self, into: memoryview, index: int) -> None:
        preadv: Callable[[int, list[memoryview], int], int] | None = getattr(os, "preadv", None)
        assert preadv is not None, "where a system lacks it, `_file_of` names no file"
        try:
            count = preadv(self._descriptor, [into], self._offset + index * self._size)
        except OSError as error:
            raise self._unreadable(index, error.strerror or str(error)) from error
        if count != self._size:
            raise self._unreadable(index, f"it has {count} of {self._size} bytes there")

    def _unreadable(self, index: int, why: str) -> DataError:
        return DataError(
            f"training images must be readable, but image {index} of {self._path} is not: {why}; "
            f"check the disk, or remove {self._path.parent}, which is then made again"
        )


def _file_of(pixels_NCHW: np.ndarray) -> tuple[Path, int] | None:
    """Return the file that all of these are mapped from, in order, and where in it they begin; None for others."""
    outermost = pixels_NCHW
    while isinstance(outermost.base, np.ndarray):
        outermost = outermost.base
    if not isinstance(outermost, np.memmap) or not pixels_NCHW.flags.c_contiguous or not hasattr(os, "preadv"):
        return None
    path = Path(str(outermost.filename))
    return (path, outermost.offset + pixels_NCHW.ctypes.data - outermost.ctypes.data) if path.is_file() else None


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    """Send the values to the device; a GPU copies out of pinned memory while the host goes on."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
