"""scikit-learn's digits: 1,797 real 8×8 images in 17 grey levels, inside the library.

The UCI test part of "Optical Recognition of Handwritten Digits". It has no split of its own, so pixeltune fixes one:
360 test images by a permutation that no option changes, and by default 360 of the other 1,437 as validation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data import counter_rng
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.packages import require_packages

NUM_TEST = 360
NUM_VALID = 360


def files(_: DataConfig) -> list[Path]:
    """Return no files: the images come with the library."""
    return []


def read(_: DataConfig) -> RawData:
    """Read (N, 1, 8, 8), levels 0..16, ten classes."""
    require_packages('data.name = "digits"', "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels_NCHW = bunch.images.astype(np.uint8)[:, None]
    labels_N = bunch.target.astype(np.int64)
    order = counter_rng.permutation(0, "digits test", len(pixels_NCHW))
    test, train = np.sort(order[:NUM_TEST]), np.sort(order[NUM_TEST:])
    return RawData(
        train=ImageSet(pixels_NCHW[train], labels_N[train]),
        test=ImageSet(pixels_NCHW[test], labels_N[test]),
        levels=17,
        version="scikit-learn, 1437 + 360",
    )
