"""What a model must know of its data, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSpec:
    """The form of every image of a data set.

    Args:
        channels: C, colours of a pixel.
        height: H, in pixels.
        width: W, in pixels.
        levels: K; levels are 0..K-1.
        num_classes: Classes of the labels 0..num_classes-1; None without labels.
    """

    channels: int
    height: int
    width: int
    levels: int
    num_classes: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Return the number of sub-pixels of an image, by which bits/dim divides."""
        return self.channels * self.height * self.width

    def describe(self, num_images: Mapping[str, int | None]) -> str:
        """Return form and counts in words, such as `1×8×8, 17 levels, 10 classes; 1,077 train, 360 validation`.

        Args:
            num_images: Images by split; a split of None is left out.
        """
        classes = f"{self.num_classes:,} classes" if self.num_classes else "no labels"
        names = {"train": "train", "valid": "validation", "test": "test"}
        counts = [f"{count:,} {names[split]}" for split, count in num_images.items() if count is not None]
        form = f"{self.channels}×{self.height}×{self.width}, {self.levels} levels, {classes}"
        return f"{form}; {', '.join(counts)}"
