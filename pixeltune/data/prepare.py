"""From a source's images to the model's: carve validation, take a fraction, grey, quantise, binarise.

Everything here is a function of one image and its place in the source, so it runs over chunks of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pixeltune.config import DataConfig, ImageSpec
from pixeltune.data import counter_rng
from pixeltune.data.dataset import DynamicDraw, ImageSet, draw_binary
from pixeltune.data.raw import RawData
from pixeltune.errors import ConfigError

_CHUNK_VALUES = 1 << 22
_LUMA = (19595, 38470, 7471)
"""ITU-R 601 weights 0.299, 0.587, 0.114 in units of 1/65536, as Pillow has them: grey is the same before and after."""


@dataclass(frozen=True)
class PixelTransform:
    """The way from a source's levels to the model's.

    grey: luma of three colours. source_levels, levels: quantise by floor(v · levels / source_levels).
    binarise: `none`, `static` or `threshold`, after quantising. seed: of the static draw.
    """

    grey: bool
    source_levels: int
    levels: int
    binarise: str
    seed: int

    def apply(self, pixels_NCHW: np.ndarray, *, stream: str, rows_N: np.ndarray) -> np.ndarray:
        """Return (N, C or 1, H, W) uint8; a static draw depends on (seed, stream, place in the source) alone."""
        if self.grey:
            pixels_NCHW = luma(pixels_NCHW)
        if self.levels < self.source_levels:
            pixels_NCHW = (pixels_NCHW.astype(np.uint32) * self.levels // self.source_levels).astype(np.uint8)
        if self.binarise == "threshold":
            return (2 * pixels_NCHW.astype(np.uint16) >= self.levels).astype(np.uint8)
        if self.binarise == "static":
            keys_N = counter_rng.keys(self.seed, f"static/{stream}", rows_N)
            return draw_binary(pixels_NCHW, keys_N, levels=self.levels)
        return pixels_NCHW


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """A split of the model's data, not yet formed: rows of one split of the source, named by `stream`.

    then: images of another split of the source that follow, where both are trained on.
    """

    source: ImageSet
    rows_N: np.ndarray
    stream: str
    formation: PixelTransform
    labelled: bool
    then: SplitPlan | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (N, C, H, W) of what `chunks` yields in all."""
        _, channels, height, width = self.source.pixels_NCHW.shape
        count = len(self.rows_N) + (self.then.shape[0] if self.then else 0)
        return count, 1 if self.formation.grey else channels, height, width

    @property
    def labels_N(self) -> np.ndarray | None:
        """Return (N,) int64, or None."""
        if not self.labelled or self.source.labels_N is None:
            return None
        labels_N: np.ndarray = self.source.labels_N[self.rows_N].astype(np.int64)
        more_N = self.then.labels_N if self.then else None
        return labels_N if more_N is None else np.concatenate([labels_N, more_N])

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the images, formed, a few MB at a time."""
        step = max(1, _CHUNK_VALUES // int(np.prod(self.source.pixels_NCHW.shape[1:])))
        for start in range(0, len(self.rows_N), step):
            rows = self.rows_N[start : start + step]
            pixels = self.formation.apply(self.source.pixels_NCHW[rows], stream=self.stream, rows_N=rows)
            yield np.ascontiguousarray(pixels)
        if self.then:
            yield from self.then.chunks()

    def formed(self, formation: PixelTransform) -> SplitPlan:
        """Return the same images, formed in another way."""
        return replace(self, formation=formation, then=self.then.formed(formation) if self.then else None)


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that a DataSet will be, with its pixels still to be formed.

    parts: train, perhaps valid and test. findings: lines about the images, for readers of their numbers.
    """

    name: str
    version: str
    form: ImageSpec
    parts: dict[str, SplitPlan]
    dynamic: DynamicDraw | None
    findings: tuple[str, ...] = ()


def prepare(raw: RawData, config: DataConfig, *, default_num_valid: int | None, already_grey: bool) -> Prepared:
    """Plan the model's splits; ConfigError where an option does not fit the images."""
    formation = formation_of(raw, config, already_grey=already_grey)
    num_classes = raw.num_classes()
    dynamic = DynamicDraw(config.binarise_seed, formation.levels) if config.binarise == "dynamic" else None
    parts = {
        name: SplitPlan(raw.splits[stream], rows_N, stream, formation, labelled=num_classes is not None)
        for name, (stream, rows_N) in split_rows(raw, config, default_num_valid).items()
    }
    if config.train_on_valid:
        parts["train"] = replace(parts["train"], then=parts.pop("valid"))
    if dynamic is not None:
        parts["train"] = parts["train"].formed(replace(formation, binarise="none"))
    levels = formation.levels if config.binarise == "none" else 2
    form = ImageSpec(*parts["train"].shape[1:], levels=levels, num_classes=num_classes)
    return Prepared(config.name, raw.version, form, parts, dynamic)


def formation_of(raw: RawData, config: DataConfig, *, already_grey: bool) -> PixelTransform:
    """Return what the options do to this source; with `dynamic`, to validation and test: the static draw."""
    channels = raw.train.pixels_NCHW.shape[1]
    levels = raw.levels if config.levels is None else config.levels
    if config.grey and not already_grey and channels != 3:
        raise ConfigError(f"`data.grey` needs 3 colours, but {config.name} has {channels}; unset it")
    if levels > raw.levels:
        raise ConfigError(
            f"`data.levels` must be at most the {raw.levels} levels of {config.name}, but got {levels}; "
            "levels can only be merged"
        )
    if config.binarise != "none" and levels == 2:
        raise ConfigError(f"`data.binarise` needs more than 2 levels, but {config.name} has 2; set it to none")
    return PixelTransform(
        grey=config.grey and not already_grey,
        source_levels=raw.levels,
        levels=levels,
        binarise="static" if config.binarise == "dynamic" else config.binarise,
        seed=config.binarise_seed,
    )


def split_rows(raw: RawData, config: DataConfig, default: int | None) -> dict[str, tuple[str, np.ndarray]]:
    """Return for each split of the model the source's split that it comes from, and its rows there in rising order.

    Validation is carved from train by `split_seed` unless the source has its own and `num_valid` is None. So is the
    test set with `test_fraction`, from the other end of the same order: it does not depend on the other options.
    A fraction keeps the first training images of the same order, so a smaller one is part of a larger one.
    """
    order = counter_rng.permutation(config.split_seed, "split", len(raw.train))
    num_test = _num_held_out(raw, config)
    order, held_out = order[: len(order) - num_test], order[len(order) - num_test :]
    count = len(order)
    num_valid = _num_carved(raw, config, default)
    if num_valid >= count:
        raise ConfigError(
            f"`data.num_valid` must be less than the {count} training images of {config.name}, but got {num_valid}"
        )
    num_train = max(1, round(config.fraction * (count - num_valid)))
    splits = {"train": ("train", np.sort(order[num_valid : num_valid + num_train]))}
    if num_valid:
        splits["valid"] = ("train", np.sort(order[:num_valid]))
    elif raw.valid is not None:
        splits["valid"] = ("valid", np.arange(len(raw.valid)))
    if raw.test is not None:
        splits["test"] = ("test", np.arange(len(raw.test)))
    elif num_test:
        splits["test"] = ("train", np.sort(held_out))
    return splits


def luma(pixels_NCHW: np.ndarray) -> np.ndarray:
    """Return (N, 1, H, W) uint8: ITU-R 601 luma of (N, 3, H, W), rounded."""
    red, green, blue = (pixels_NCHW[:, colour].astype(np.uint32) * weight for colour, weight in enumerate(_LUMA))
    return ((red + green + blue + 0x8000) >> 16).astype(np.uint8)[:, None]


def _num_held_out(raw: RawData, config: DataConfig) -> int:
    if not config.test_fraction:
        return 0
    if raw.test is not None:
        raise ConfigError(
            f"`data.test_fraction` must be 0 for {config.name}, which has a test split of {len(raw.test):,} images, "
            f"but got {config.test_fraction:g}"
        )
    count = max(1, round(config.test_fraction * len(raw.train)))
    if count >= len(raw.train):
        raise ConfigError(
            f"`data.test_fraction` must leave training images, but {config.test_fraction:g} of the {len(raw.train)} "
            f"images of {config.name} are all of them"
        )
    return count


def _num_carved(raw: RawData, config: DataConfig, default: int | None) -> int:
    if config.num_valid is not None:
        return config.num_valid
    if raw.valid is not None:
        return 0
    if default is not None:
        return default
    return max(1, min(10_000, len(raw.train) // 10))
