"""MNIST, Fashion-MNIST and CIFAR-10, fetched by torchvision into its own layout below `data.path`.

One process of a node fetches, into a folder of its own, and each file appears whole, by a rename: whoever reads without
a lock, or after a fetch that was killed, sees whole files or none.

IDX files are read here, not by torchvision: theirs needs the unpacked files, and importing it costs seconds and torch.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.locks import node_lock, remove_leftovers
from pixeltune.data.raw import RawData
from pixeltune.data.readers.places import data_root, in_one_line
from pixeltune.data.sets import ImageSet
from pixeltune.errors import DataError

_IDX_NAMES = {"train": "train", "test": "t10k"}
_ORIGINAL = {"MNIST": "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a"}
"""SHA-256 over the published unpacked files, in the order of `idx_files`."""

_CIFAR_FOLDER = "cifar-10-batches-py"
_CIFAR_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")


def idx_files(kind: str, config: DataConfig) -> list[Path]:
    """Training images and labels, test images and labels, each packed (.gz) or not; fetched first where allowed."""
    raw = _root(config) / kind / "raw"
    names = [f"{part}-{what}-ubyte" for part in _IDX_NAMES.values() for what in ("images-idx3", "labels-idx1")]
    _fetch(
        config,
        lambda root: getattr(_torchvision().datasets, kind)(root, download=True),
        lambda: all(_idx_file(raw, name) for name in names),
    )
    found = [_idx_file(raw, name) for name in names]
    if None in found:
        raise DataError(f"{raw} must hold {', '.join(names)}, but lacks {names[found.index(None)]}")
    return [file for file in found if file is not None]


def read_idx(kind: str, config: DataConfig) -> RawData:
    """(N, 1, 28, 28), 256 levels, ten classes."""
    digest = hashlib.sha256()
    arrays = [_read_idx_file(file, digest) for file in idx_files(kind, config)]
    train, test = (ImageSet(images[:, None], labels.astype(np.int64)) for images, labels in (arrays[:2], arrays[2:]))
    known = _ORIGINAL.get(kind)
    version = "unchecked" if known is None else "original" if digest.hexdigest() == known else "altered"
    return RawData(train=train, test=test, version=version)


def cifar10_files(config: DataConfig) -> list[Path]:
    """The seven files of the python version; fetched first where allowed."""
    folder = _root(config) / _CIFAR_FOLDER
    paths = [folder / name for name in _CIFAR_NAMES]
    _fetch(
        config,
        lambda root: _torchvision().datasets.CIFAR10(root, download=True),
        lambda: all(path.is_file() for path in paths),
    )
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder} must hold {', '.join(_CIFAR_NAMES)}, but lacks {missing[0]}")
    return paths


def read_cifar10(config: DataConfig) -> RawData:
    """(N, 3, 32, 32), 256 levels, ten classes; torchvision checks the files against the published sums."""
    from torchvision.datasets import CIFAR10

    try:
        halves = [CIFAR10(_root(config), train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(
            f"{_root(config) / _CIFAR_FOLDER} must hold the published files, but does not: {in_one_line(error)}; "
            "remove it and set `data.download`"
        ) from error
    train, test = (ImageSet(np.moveaxis(half.data, 3, 1), np.array(half.targets, np.int64)) for half in halves)
    return RawData(train=train, test=test, version="original")


def _root(config: DataConfig) -> Path:
    return data_root() if config.path is None else Path(config.path).expanduser()


def _fetch(config: DataConfig, fetch: Callable[[Path], object], is_there: Callable[[], bool]) -> None:
    """Unless it is there, fetch into an empty folder, and move the files from there."""
    if is_there():
        return
    root = _root(config)
    if not config.download:
        raise DataError(
            f"{config.name} must lie in {root}, but does not; set `data.download = true` to fetch it, "
            "or `data.path` to where it is"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with node_lock(root / f".lock-{config.name}", f"fetches {config.name}"):
            if not is_there():
                _fetch_whole(root, config.name, fetch)
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{config.name} must be fetched into {root}, but could not: {in_one_line(error)}") from error


def _fetch_whole(root: Path, name: str, fetch: Callable[[Path], object]) -> None:
    remove_leftovers(root, name)
    with tempfile.TemporaryDirectory(prefix=f".part-{name}-", dir=root) as folder:
        fetch(Path(folder))
        for file in [path for path in Path(folder).rglob("*") if path.is_file()]:
            place = root / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


def _torchvision() -> Any:
    """Imported by who fetches alone: it takes seconds, and torch."""
    import torchvision

    return torchvision


def _idx_file(raw: Path, name: str) -> Path | None:
    return next((path for path in (raw / name, raw / f"{name}.gz") if path.is_file()), None)


def _read_idx_file(path: Path, digest: hashlib._Hash) -> np.ndarray:
    """uint8 of 1 or 3 axes. The format: 0, 0, 8 (uint8), number of axes, each length as big-endian int32, values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
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
