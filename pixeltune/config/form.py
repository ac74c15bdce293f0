"""What a model must know of its data, without the data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageForm:
    """The form of every image of a data set: colour channels C, height H, width W, levels K, classes if labelled."""

    channels: int
    height: int
    width: int
    levels: int
    num_classes: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Sub-pixels of an image: the number by which bits/dim divides."""
        return self.channels * self.height * self.width
