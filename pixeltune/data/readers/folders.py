"""A folder of image files: train/, and where they exist valid/ and test/, images in any depth, in sorted order.

With `data.test_fraction` also a folder of images without these splits. Links are followed inside the folder, unless
they lead back to a folder above them.

Labels: the folders directly below a split are classes if every image is in one of them, in every split, and train
has at least two. A split that only contains `images/` has no labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import OWN_FILES, RawData
from pixeltune.data.readers.image_decoder import Decoder, EncodedImage
from pixeltune.data.readers.listing import SPLIT_NAMES, Ignored, SplitFolder, scan_images
from pixeltune.data.readers.paths import given_path


def files(config: DataConfig) -> list[Path]:
    """Return every image of every split."""
    splits, _ = _scan(config)
    return [path for split in splits.values() for path in split.paths]


def ignored(config: DataConfig) -> tuple[Ignored, ...]:
    """Return what is below the folder and not read."""
    return _scan(config)[1]


def read(config: DataConfig) -> RawData:
    """Return all images, decoded."""
    splits, _ = _scan(config)
    return read_splits(splits, config, version=OWN_FILES)


def read_splits(splits: dict[str, SplitFolder], config: DataConfig, *, version: str) -> RawData:
    """Return the images of these folders, decoded, with the labels that their folders say."""
    decoder = Decoder(config)
    labels = _labels(splits)
    sets = {
        name: ImageSet(
            decoder.decode_all((EncodedImage(str(path), path) for path in split.paths), len(split.names)),
            labels.get(name),
        )
        for name, split in splits.items()
    }
    return RawData.of(sets, version=version)


def _scan(config: DataConfig) -> tuple[dict[str, SplitFolder], tuple[Ignored, ...]]:
    is_whole = config.test_fraction > 0
    return scan_images(given_path(config), SPLIT_NAMES, follow_links=config.follow_links, is_whole=is_whole)


def _labels(splits: dict[str, SplitFolder]) -> dict[str, np.ndarray]:
    of_split = {name: split.class_names() for name, split in splits.items()}
    if any(names is None for names in of_split.values()):
        return {}
    classes = sorted(set(of_split["train"] or ()))
    if len(classes) < 2 or any(not set(names or ()) <= set(classes) for names in of_split.values()):
        return {}
    index = {name: number for number, name in enumerate(classes)}
    return {split: np.array([index[name] for name in names or ()], np.int64) for split, names in of_split.items()}
