"""The order-0 baseline: what a model must beat to have learned any dependence between pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixeltune.config import ImageSpec
from pixeltune.data.dataset import DataSet, ImageSet
from pixeltune.errors import DataError

_CHUNK_VALUES = 1 << 22


def order0_bits_per_dim(data: DataSet, split: str = "valid") -> float:
    """Return the bits/dim of one histogram a sub-pixel position, fitted on train with add-½ over K levels.

    With dynamic binarisation training has no fixed pixels: its counts are the exact expectations over the draws.

    Args:
        data: The data set.
        split: `train`, `valid` or `test`, whose bits are counted.

    Raises:
        DataError: The data has no such split.
    """
    chosen = {"train": data.train, "valid": data.valid, "test": data.test}.get(split)
    if chosen is None:
        raise DataError(f"split must be train, valid or a test that the data has, but got {split!r}")
    fitted_DK = _train_counts(data)
    counts_DK = fitted_DK if split == "train" else _counts(chosen, data.form)
    log2_p_DK = np.log2((fitted_DK + 0.5) / (len(data.train) + 0.5 * data.form.levels))
    return float(-(counts_DK * log2_p_DK).sum() / (len(chosen) * data.form.dims))


def _train_counts(data: DataSet) -> np.ndarray:
    if data.dynamic is None:
        return _counts(data.train, data.form)
    sums_D = np.zeros(data.form.dims)
    for values_ND in _chunks(data.train):
        sums_D += values_ND.sum(axis=0, dtype=np.int64)
    ones_D = sums_D / (data.dynamic.levels - 1)
    return np.stack([len(data.train) - ones_D, ones_D], axis=1)


def _counts(images: ImageSet, form: ImageSpec) -> np.ndarray:
    counts = np.zeros(form.dims * form.levels, dtype=np.int64)
    offsets_D = np.arange(form.dims) * form.levels
    for values_ND in _chunks(images):
        counts += np.bincount((values_ND + offsets_D).ravel(), minlength=counts.size)
    return counts.reshape(form.dims, form.levels).astype(np.float64)


def _chunks(images: ImageSet) -> Iterator[np.ndarray]:
    dims = int(np.prod(images.pixels_NCHW.shape[1:]))
    step = max(1, _CHUNK_VALUES // dims)
    for start in range(0, len(images), step):
        yield images.pixels_NCHW[start : start + step].reshape(-1, dims)
