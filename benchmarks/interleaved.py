"""Interleaved tiles, as a data set: what `model.split` costs where tiles are every s-th pixel instead of contiguous.

A network that splits images whose pixels stand re-arranged is one that interleaves the images as they are: tile (i, j)
of the re-arranged image holds the pixels (s·r + i, s·c + j). The log likelihood is the same, for the pixels are. From
the project's root, with `data.path` where the Parquet files lie:

    pixeltune train --config FILE.toml --set model.split=2 --set data.name=benchmarks.interleaved:by_2
"""

from __future__ import annotations

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers import parquet


def by_2(config: DataConfig) -> RawData:
    """The images of `tables.read`, re-arranged for `model.split = 2`."""
    return _re_arranged(config, 2)


def by_4(config: DataConfig) -> RawData:
    """The images of `tables.read`, re-arranged for `model.split = 4`."""
    return _re_arranged(config, 4)


def _re_arranged(config: DataConfig, s: int) -> RawData:
    splits = {name: _by_tile(split, s) for name, split in parquet.read(config).splits.items()}
    return RawData.of(splits, layout="NCHW")


def _by_tile(images: ImageSet, s: int) -> ImageSet:
    """Pixel (s·r + i, s·c + j) to row r, column c of tile (i, j)."""
    N, C, H, W = images.pixels_NCHW.shape
    pixels_NChsws = images.pixels_NCHW.reshape(N, C, H // s, s, W // s, s)
    pixels_NCshsw = pixels_NChsws.transpose(0, 1, 3, 2, 5, 4)
    return ImageSet(np.ascontiguousarray(pixels_NCshsw).reshape(N, C, H, W), images.labels_N)
