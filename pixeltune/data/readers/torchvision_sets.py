"""MNIST, Fashion-MNIST, EMNIST and CIFAR-10, in torchvision's own layout below `data.path`.

IDX files are read here, not by torchvision: theirs needs the unpacked files, and importing it costs seconds and torch.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers.downloads import require_files, require_paths
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError
from pixeltune.published_sets import PublishedSet

_ORIGINAL = {"mnist": "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a"}
"""SHA-256 over the published unpacked files, in the order of the archives."""

LARGEST_IDX_BYTES = 2**30
"""The published ones have at most 47 MB."""


def read_idx(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 1, 28, 28), 256 levels; EMNIST's images are transposed, as they are published."""
    digest = hashlib.sha256()
    arrays = [_read_idx_file(file, digest) for file in require_paths(published, config)]
    train, test = (ImageSet(images[:, None], labels.astype(np.int64)) for images, labels in (arrays[:2], arrays[2:]))
    known = _ORIGINAL.get(published.name)
    version = "unchecked" if known is None else "original" if digest.hexdigest() == known else "altered"
    return RawData(train=train, test=test, version=version)


def read_cifar10(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 3, 32, 32), 256 levels, ten classes; torchvision checks the files against the published sums."""
    from torchvision import datasets

    root = require_files(published, config.path, download=config.download)
    try:
        halves = [datasets.CIFAR10(root, train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(
            f"{root / 'cifar-10-batches-py'} must hold the published files, but does not: {in_one_line(error)}; "
            "remove it and set `data.download`"
        ) from error
    train, test = (ImageSet(np.moveaxis(half.data, 3, 1), np.array(half.targets, np.int64)) for half in halves)
    return RawData(train=train, test=test, version="original")


def _unpacked(path: Path) -> bytes:
    """Unpack a file; a small one may unpack to more than any memory."""
    with gzip.open(path) as stream:
        content = stream.read(LARGEST_IDX_BYTES + 1)
    if len(content) > LARGEST_IDX_BYTES:
        raise ValueError(f"it must have at most {LARGEST_IDX_BYTES:,} bytes unpacked, but has more")
    return content


def _read_idx_file(path: Path, digest: hashlib._Hash) -> np.ndarray:
    """Read uint8 of 1 or 3 axes: 0, 0, 8 (uint8), number of axes, each length as big-endian int32, then values."""
    try:
        content = _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
        axes = 3 if "images" in path.name else 1
        header = np.frombuffer(content, dtype=">i4", count=1 + axes)
        values = np.frombuffer(content, dtype=np.uint8, offset=4 * len(header))
        if header[0] != 0x0800 + axes:
            raise ValueError(f"it begins with {header[0]:#010x}")
        array = values.reshape(header[1:])
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} must be a whole IDX file, but is not: {in_one_line(error)}; remove it and set `data.download`"
        ) from error
    digest.update(content)
    return array
