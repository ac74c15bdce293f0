"""Whether images use the levels that they declare.

Bits/dim are stated in K levels. Images of two levels, stored as 0 and 1 and declared as 256 by default, are nearly
black: binarising or quantising them leaves black images, whose bits/dim is absurdly good. A likelihood of 256 levels
spends its range on levels that never occur. So the levels that occur are counted when images are loaded.

The rule: a training set is sparse if at most a quarter of its levels occur, though each of those occurs 64 times on
average. Sets of three photographs or more are not: three MNIST digits have at least 63 levels in 2,352 values, four
32×32 crops of ImageNet, in grey, at least 133 in 4,096 (2026-11-30, the first 2,000 digits and 1,785 photographs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import DataSet
from pixeltune.data.prepare import formation_of
from pixeltune.data.raw import RawData
from pixeltune.errors import ConfigError

MOST_USED = 1 / 4
"""Share of the levels that occur, above which a set is not sparse."""

LEAST_EACH = 64
"""Values a level that occurs, on average, below which there are too few values to decide."""

_CHUNK_VALUES = 1 << 20
_MOST_VALUES = 1 << 27
"""Looked at whenever a sparse set is loaded, in about a second; before it is binarised, all are."""


def require_usable_levels(raw: RawData, config: DataConfig, *, already_grey: bool) -> None:
    """Refuse to quantise or binarise sparse images where that would not do what it says.

    Args:
        raw: Images of a source.
        config: What to do with them.
        already_grey: Whether the reader has followed `data.grey`.

    Raises:
        ConfigError: Quantising would merge the few levels that occur, or few levels would be binarised.
    """
    if config.levels is None and config.binarise == "none":
        return
    formation = replace(formation_of(raw, config, already_grey=already_grey), binarise="none")
    levels, pixels_NCHW = formation.levels, raw.train.pixels_NCHW
    as_is = replace(formation, levels=raw.levels)
    chunks = (as_is.apply(chunk, stream="train", rows_N=np.arange(len(chunk))) for chunk in _chunks(pixels_NCHW))
    used = _sparse_levels(chunks, raw.levels)
    if used is None:
        return
    kept = np.unique(used.astype(np.int64) * levels // raw.levels)
    if len(kept) < min(len(used), levels):
        raise ConfigError(
            f"`data.levels` must keep apart the levels of {config.name}, but {_occurrence(used, raw.levels)}, which "
            f"{levels} levels would merge into {len(kept)}; {_advice(used, raw.levels)}"
        )
    if config.binarise != "none" and len(kept) <= MOST_USED * levels:
        raise ConfigError(
            f"`data.binarise` must have grey levels, but of {config.name} {_occurrence(kept, levels)}; "
            f"{_advice(kept, levels)}{', and set `data.binarise` to none' * (len(kept) == 2)}"
        )


def unused_levels_note(data: DataSet) -> str | None:
    """Return a line on a split that uses few of its levels, with what to do; None where each uses many."""
    for split, images in (("training", data.train), ("validation", data.valid), ("test", data.test)):
        if images is None:
            continue
        levels = data.dynamic.levels if data.dynamic and split == "training" else data.form.levels
        used = _sparse_levels(_chunks(images.pixels_NCHW, most=_MOST_VALUES), levels)
        if used is not None:
            return (
                f"{split} images should use the levels that they declare, but of {data.identity.name} "
                f"{_occurrence(used, levels)}: bits/dim count all {levels}; {_advice(used, levels)}"
            )
    return None


def _sparse_levels(chunks: Iterable[np.ndarray], levels: int) -> np.ndarray | None:
    """Return the levels that occur, in rising order, in sparse images; None for others, mostly at the first chunk."""
    occurs_K, values = np.zeros(levels, dtype=bool), 0
    for chunk in chunks:
        occurs_K[chunk] = True
        values += chunk.size
        if occurs_K.sum() > MOST_USED * levels:
            return None
    used = np.flatnonzero(occurs_K)
    return used if values >= LEAST_EACH * len(used) else None


def _chunks(pixels_NCHW: np.ndarray, most: int | None = None) -> Iterator[np.ndarray]:
    """Yield the images; of more values than `most`, every second chunk, or third, and so on."""
    step = max(1, _CHUNK_VALUES // int(np.prod(pixels_NCHW.shape[1:])))
    stride = step if most is None else step * -(-pixels_NCHW.size // most)
    for start in range(0, len(pixels_NCHW), stride):
        yield pixels_NCHW[start : start + step]


def _occurrence(used: np.ndarray, levels: int) -> str:
    shown = ", ".join(map(str, used)) if len(used) <= 4 else f"{used[0]}, {used[1]}, … {used[-1]}"
    return f"only {len(used)} of {levels} levels occur ({shown})"


def _advice(used: np.ndarray, levels: int) -> str:
    """Return how to declare the levels that occur."""
    count, top = len(used), int(used[-1])
    if count == 1:
        return "see whether the images were read as they should be"
    declared = "as `levels` of a .npz, or in the RawData of a function of your own"
    if top < MOST_USED * levels:
        return f"if they are images of {top + 1} levels, declare {top + 1} {declared}"
    if np.array_equal(used * count // levels, np.arange(count)):
        return f"`data.levels={count}` numbers these levels 0 to {count - 1}"
    return f"number the levels that occur 0 to {count - 1}, and declare {count} {declared}"
