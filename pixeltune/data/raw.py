"""What a reader returns, built-in or the user's own, and the check that it keeps its word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pixeltune.data.dataset import ImageSet
from pixeltune.errors import DataError

OWN_FILES = "own files"
"""The version of unpublished data: its checksum alone says which it is."""

OTHER_FILES = "other"
"""The version of files in the form of a published set that are not the published ones."""


Layout = Literal["auto", "NCHW", "NHWC"]


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set as its source has it, before carving, quantising and binarising.

    Args:
        train: Images, uint8.
        valid: Images of the same form; None where the source has none (validation is then carved from train).
        test: Images of the same form; None where the source has none.
        levels: K; pixel values are 0..K-1.
        version: Which edition this is, for the identity.
        layout: Where the images of a function of your own have their colours: (N, C, H, W) or (N, H, W, C). `auto`
            decides by the shape as the source `array` does, and refuses a shape that does not decide.
    """

    train: ImageSet
    valid: ImageSet | None = None
    test: ImageSet | None = None
    levels: int = 256
    version: str = OWN_FILES
    layout: Layout = "auto"

    @classmethod
    def of(
        cls,
        splits: Mapping[str, ImageSet],
        *,
        levels: int = 256,
        version: str = OWN_FILES,
        layout: Layout = "auto",
    ) -> RawData:
        """Return a RawData of splits by name.

        Args:
            splits: `train` and, where there are some, `valid` and `test`.
            levels: K; pixel values are 0..K-1.
            version: Which edition this is, for the identity.
            layout: See `RawData`.

        Raises:
            DataError: `train` is not among them, or a name is not train, valid or test.
        """
        if "train" not in splits or not splits.keys() <= {"train", "valid", "test"}:
            got = ", ".join(map(str, splits)) or "none"
            raise DataError(
                f"splits must be train and, where there are some, valid and test, but got {got}; rename them"
            )
        valid, test = splits.get("valid"), splits.get("test")
        return cls(splits["train"], valid, test, levels=levels, version=version, layout=layout)

    @property
    def splits(self) -> dict[str, ImageSet]:
        """Return the splits that exist, by name."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    def num_classes(self) -> int | None:
        """Return the largest label + 1; None unless every split has a label for every image (-1 means unlabelled)."""
        labels = [split.labels_N for split in self.splits.values()]
        if any(labels_N is None or labels_N.min() < 0 for labels_N in labels):
            return None
        return 1 + max(int(labels_N.max()) for labels_N in labels if labels_N is not None)


def require_sound(raw: object, *, name: str) -> RawData:
    """Return `raw`, a RawData whose splits have one form, levels in range and a label an image; else DataError."""
    if not isinstance(raw, RawData):
        raise DataError(f"source {name} must return a pixeltune.data.RawData, but got {type(raw).__name__}")
    if not isinstance(raw.levels, int | np.integer) or not 2 <= raw.levels <= 256:
        raise DataError(f"source {name} must have 2 to 256 levels, a whole number, but got {raw.levels!r}")
    for split_name, split in raw.splits.items():
        _require_split(split, f"{split_name} of source {name}", raw)
    _require_classes(raw, name)
    return raw


def _require_split(split: ImageSet, where: str, raw: RawData) -> None:
    pixels = split.pixels_NCHW
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise DataError(f"{where} must be uint8 of shape (N, C, H, W), but got {pixels.dtype} of shape {pixels.shape}")
    if 0 in pixels.shape:
        raise DataError(f"{where} must hold at least one image, but got shape {pixels.shape}")
    if pixels.shape[1:] != raw.train.pixels_NCHW.shape[1:]:
        form = raw.train.pixels_NCHW.shape[1:]
        raise DataError(f"{where} must have images of shape {form} as train has, but got {pixels.shape[1:]}")
    if raw.levels < 256 and int(pixels.max()) >= raw.levels:
        raise DataError(f"{where} must have levels below {raw.levels}, but got {int(pixels.max())}")
    if split.labels_N is not None:
        _require_labels(split.labels_N, where, len(split))


def _require_labels(labels_N: np.ndarray, where: str, count: int) -> None:
    if labels_N.shape != (count,) or labels_N.dtype.kind not in "iu":
        raise DataError(
            f"labels of {where} must be {count} integers, but got {labels_N.dtype} of shape {labels_N.shape}"
        )


def _require_classes(raw: RawData, name: str) -> None:
    """Refuse labels that are no class numbers 0..K-1: a model would have a class for each number up to the largest."""
    num_classes = raw.num_classes()
    if num_classes is None:
        return
    used = np.unique(
        np.concatenate([labels for split in raw.splits.values() if (labels := split.labels_N) is not None])
    )
    if used[0] == 1:
        raise DataError(
            f"labels of source {name} must be 0..K-1, but begin at 1 and reach {used[-1]}; subtract 1 from each"
        )
    if 2 * len(used) < num_classes:
        raise DataError(
            f"labels of source {name} must be 0..K-1, but {len(used):,} numbers are in use and the largest is "
            f"{used[-1]:,}; number the classes from 0 on, or leave the labels out"
        )
