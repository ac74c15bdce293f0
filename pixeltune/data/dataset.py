"""What the rest of pixeltune sees of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixeltune.config import ImageSpec
from pixeltune.data import counter_rng


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split. Both arrays become read-only views.

    Args:
        pixels_NCHW: uint8 levels 0..K-1 of shape (N, C, H, W), possibly mapped from a file.
        labels_N: int64 classes 0..num_classes-1 of shape (N,), or None.
    """

    pixels_NCHW: np.ndarray
    labels_N: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels_NCHW", _read_only(self.pixels_NCHW))
        if self.labels_N is not None:
            object.__setattr__(self, "labels_N", _read_only(self.labels_N))

    def __len__(self) -> int:
        return len(self.pixels_NCHW)


@dataclass(frozen=True)
class DataIdentity:
    """Identifies the data that a number was measured on.

    Args:
        name: The source.
        version: Which edition of it, in the source's words.
        checksum: 16 hex digits of the SHA-256 over form, pixels, labels and splits as the model sees them.
    """

    name: str
    version: str
    checksum: str


@dataclass(frozen=True)
class DynamicDraw:
    """Dynamic binarisation: training pixels are kept in `levels` grey levels and drawn again in every epoch."""

    seed: int
    levels: int


@dataclass(frozen=True, eq=False)
class DataSet:
    """Splits of one form, as the model sees them.

    Args:
        identity: Source, edition and checksum.
        form: What the model sees; with dynamic binarisation it has 2 levels while `train.pixels_NCHW` holds the
            `dynamic.levels` grey levels, so training images must be taken through `train_batch`.
        train: The training images.
        valid: The validation images; None where they are trained on too (`data.train_on_valid`).
        test: The test images; None where the source has none.
        dynamic: How training images are drawn in each epoch; None without dynamic binarisation.
        notes: Lines for the header of a command: files that are not read, images in two splits, labels that do not
            count, levels that do not occur.
    """

    identity: DataIdentity
    form: ImageSpec
    train: ImageSet
    valid: ImageSet | None
    test: ImageSet | None
    dynamic: DynamicDraw | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_images(self) -> dict[str, int]:
        """Return the number of images by split; a split that does not exist has none."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: 0 if images is None else len(images) for name, images in splits.items()}

    def train_batch(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Return (B, C, H, W) uint8 copies of the training images at `indices` (B,), as they look in `epochs` (B,).

        A dynamic draw depends on (seed, epoch, index) alone: not on the batch, the worker or the order. Training
        itself draws on its device, the same, and flips there (`pixeltune.training.batches`).
        """
        pixels_BCHW = np.ascontiguousarray(self.train.pixels_NCHW[indices])
        if self.dynamic is None:
            return pixels_BCHW
        keys_B = counter_rng.keys(self.dynamic.seed, "dynamic", np.asarray(epochs), np.asarray(indices))
        return draw_binary(pixels_BCHW, keys_B, levels=self.dynamic.levels)


def draw_binary(pixels_NCHW: np.ndarray, keys_N: np.ndarray, *, levels: int) -> np.ndarray:
    """Draw (N, C, H, W) uint8 of zeros and ones with P(1) = v / (levels - 1) from each image's key."""
    dims = int(np.prod(pixels_NCHW.shape[1:]))
    thresholds_ND = counter_rng.below(keys_N, dims, levels - 1)
    return (thresholds_ND.reshape(pixels_NCHW.shape) < pixels_NCHW).astype(np.uint8)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
