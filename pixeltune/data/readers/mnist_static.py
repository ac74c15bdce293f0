"""MNIST binarised once by Larochelle, after Salakhutdinov and Murray 2008: the draw that the literature reports on.

Three text files, an image a line, its 784 pixels as 0 or 1 with a space after each. Train, validation and test are
published: 50,000, 10,000 and 10,000 images, the first two being MNIST's training images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers.downloads import require_paths
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError
from pixeltune.published_sets import PublishedSet

_SPLITS = ("train", "valid", "test")
_BLANKS = np.frombuffer(b" \n\r", dtype=np.uint8)


def read(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 1, 28, 28) in two levels, without labels; version "altered" if a file is not the published one."""
    _, height, width = published.shape
    splits = {
        name: ImageSet(_read_amat(path, height * width).reshape(-1, 1, height, width))
        for name, path in zip(_SPLITS, require_paths(published, config), strict=True)
    }
    version = published.checked_version(published.root(config.path))
    return RawData.of(splits, levels=published.levels, version=version)


def _read_amat(path: Path, dims: int) -> np.ndarray:
    """Return (N, dims) uint8 of zeros and ones."""
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        is_digit = (content == ord("0")) | (content == ord("1"))
        if not (is_digit | np.isin(content, _BLANKS)).all() or (is_digit[1:] & is_digit[:-1]).any():
            raise ValueError("it has something other than 0 and 1 with blanks between them")
        line_starts = np.concatenate([[0], np.flatnonzero(content == ord("\n")) + 1])
        in_line = np.add.reduceat(is_digit, line_starts[line_starts < len(content)], dtype=np.int32)
        if len(in_line) == 0 or (in_line != dims).any():
            raise ValueError(f"not every line has {dims} pixels")
        return (content[is_digit] - ord("0")).reshape(-1, dims)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} must have {dims} pixels 0 or 1 a line, but has not: {in_one_line(error)}; "
            "remove it and set `data.download`"
        ) from error
