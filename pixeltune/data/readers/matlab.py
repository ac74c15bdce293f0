"""SVHN and Omniglot, which are published as MATLAB files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers.downloads import require_paths
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError
from pixeltune.packages import require_packages
from pixeltune.published_sets import PublishedSet


def read_svhn(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 3, 32, 32), ten classes; the published label 10 of the digit 0 becomes 0."""
    train, test = (_svhn_split(path, published) for path in require_paths(published, config))
    return RawData(train=train, test=test, version=published.checked_version(published.root(config.path)))


def read_omniglot(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 1, 28, 28) in 256 grey levels, without labels.

    The published values are probabilities of ink, from which the literature draws binary pixels: `data.binarise`.
    Each is rounded to the nearest of 256 levels, which moves it by 1/510 at most.
    """
    (path,) = require_paths(published, config)
    content = _load(path, "data", "testdata")
    train, test = (ImageSet(_omniglot_split(content[name], name, path, published)) for name in ("data", "testdata"))
    return RawData(train=train, test=test, version=published.checked_version(published.root(config.path)))


def _svhn_split(path: Path, published: PublishedSet) -> ImageSet:
    content = _load(path, "X", "y")
    pixels_HWCN, labels_N = content["X"], content["y"].ravel()
    channels, height, width = published.shape
    if pixels_HWCN.dtype != np.uint8 or pixels_HWCN.shape != (height, width, channels, len(labels_N)):
        raise _fault(path, f"X is {pixels_HWCN.dtype} of shape {pixels_HWCN.shape} for {len(labels_N)} labels")
    if labels_N.dtype.kind not in "iu" or len(labels_N) == 0 or labels_N.min() < 1 or labels_N.max() > 10:
        raise _fault(path, "its labels y are not all from 1 to 10")
    return ImageSet(np.ascontiguousarray(pixels_HWCN.transpose(3, 2, 0, 1)), labels_N.astype(np.int64) % 10)


def _omniglot_split(values_DN: np.ndarray, name: str, path: Path, published: PublishedSet) -> np.ndarray:
    """Return (N, 1, H, W) uint8; MATLAB stores an image column by column."""
    _, height, width = published.shape
    if values_DN.ndim != 2 or values_DN.shape[0] != height * width or values_DN.shape[1] == 0:
        raise _fault(path, f"{name} has shape {values_DN.shape}, not ({height * width}, images)")
    if values_DN.dtype.kind not in "fiub" or not ((values_DN >= 0) & (values_DN <= 1)).all():
        raise _fault(path, f"{name} has values that are not from 0 to 1")
    levels_NHW = np.rint(255.0 * values_DN).astype(np.uint8).T.reshape(-1, width, height).transpose(0, 2, 1)
    return np.ascontiguousarray(levels_NHW[:, None])


def _load(path: Path, *names: str) -> dict[str, Any]:
    require_packages(f"reading {path.name}", "scipy")
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path, variable_names=names)
    # scipy raises NotImplementedError for files of MATLAB 7.3, which are HDF5.
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zlib.error, MatReadError) as error:
        raise _fault(path, in_one_line(error)) from error
    for name in names:
        if not isinstance(content.get(name), np.ndarray):
            raise _fault(path, f"it has no array {name}")
    return content


def _fault(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} must be the published MATLAB file, but is not: {reason}; remove it and set `data.download`"
    )
