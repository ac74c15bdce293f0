"""A folder of image files: train/, and where they exist valid/ and test/, images in any depth, in sorted order.
Links are followed, unless they lead back to a folder above them.

Labels: the folders directly below a split are classes if every image lies in one of them, in every split, and train
has at least two. A split that only contains `images/` has no labels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.raw import OWN_FILES, RawData
from pixeltune.data.readers.pictures import Decoder, Picture
from pixeltune.data.readers.places import given_path
from pixeltune.data.sets import ImageSet
from pixeltune.errors import DataError, MissingDataError
from pixeltune.published_sets import PublishedSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

_LAYOUT = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
_IMAGENET_LAYOUT = {"train": ("train", "train_{0}x{0}"), "test": ("valid", "val", "valid_{0}x{0}")}
"""For a side of {0} pixels. ImageNet publishes no test labels or pixels: numbers are reported on its `valid`, which is
our test set."""

_IMAGENET_VERSIONS = {(1_281_149, 49_999): "old (van den Oord)", (1_281_167, 50_000): "new (Chrabaszcz)"}


@dataclass(frozen=True)
class SplitFolder:
    """The images of one split. names: sorted, relative to `folder`, with / between the parts."""

    folder: Path
    names: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """The images' paths."""
        return [self.folder / name for name in self.names]

    def class_names(self) -> list[str] | None:
        """The folder directly below the split in which each image lies; None if some image lies in none."""
        tops = [name.partition("/") for name in self.names]
        return [top for top, _, _ in tops] if all(slash for _, slash, _ in tops) else None


def files(config: DataConfig) -> list[Path]:
    """Every image of every split."""
    return [path for split in _scan(given_path(config), _LAYOUT).values() for path in split.paths]


def read(config: DataConfig) -> RawData:
    """All images, decoded."""
    return _read(_scan(given_path(config), _LAYOUT), config, version=OWN_FILES)


def imagenet_files(published: PublishedSet, config: DataConfig) -> list[Path]:
    """Return every image of train and of the published valid."""
    return [path for split in _scan_imagenet(published, config).values() for path in split.paths]


def read_imagenet(published: PublishedSet, config: DataConfig) -> RawData:
    """Return down-sampled ImageNet; its published `valid` is our test set, validation is carved from train."""
    splits = _scan_imagenet(published, config)
    counts = {name: len(split.names) for name, split in splits.items()}
    version = _IMAGENET_VERSIONS.get((counts["train"], counts.get("test", 0)), "other")
    raw = _read(splits, config, version=version)
    channels, height, width = published.shape
    shape = raw.train.pixels_NCHW.shape[1:]
    if shape != (1 if config.grey else channels, height, width):
        raise DataError(
            f"images of {published.name} must be {channels} colours of {height}×{width}, but got {shape}; "
            "take source folder"
        )
    return raw


def _scan_imagenet(published: PublishedSet, config: DataConfig) -> dict[str, SplitFolder]:
    root = published.root(config.path)
    if not root.is_dir():
        raise MissingDataError(
            f"{published.name} must be in {root}, but that is not a folder; "
            f"{published.how_to_get(root, download=config.download)}"
        )
    side = published.shape[1]
    layout = {split: tuple(name.format(side) for name in names) for split, names in _IMAGENET_LAYOUT.items()}
    return _scan(root, layout)


def _read(splits: dict[str, SplitFolder], config: DataConfig, *, version: str) -> RawData:
    decoder = Decoder(config)
    labels = _labels(splits)
    sets = {
        name: ImageSet(
            decoder.decode_all((Picture(str(path), path) for path in split.paths), len(split.names)), labels.get(name)
        )
        for name, split in splits.items()
    }
    return RawData.of(sets, version=version)


def _scan(root: Path, layout: dict[str, tuple[str, ...]]) -> dict[str, SplitFolder]:
    splits = {}
    for split, names in layout.items():
        found = [root / name for name in names if (root / name).is_dir()]
        if len(found) > 1:
            raise DataError(f"{root} must hold one {split} folder, but has {found[0].name} and {found[1].name}")
        if found:
            splits[split] = SplitFolder(found[0], _image_names(found[0]))
    if "train" not in splits:
        raise MissingDataError(f"{root} must hold a folder train with images, but has none")
    return splits


def _image_names(folder: Path) -> tuple[str, ...]:
    """Sorted, relative to `folder`; hidden files and what lies in hidden folders do not count."""
    names = []
    # Of a folder that is still to come: the real paths that led to it, its own the last.
    trails: dict[Path, tuple[Path, ...]] = {folder: (folder.resolve(),)}
    for parent, folders, found in os.walk(folder, followlinks=True):
        here = Path(parent)
        trail = trails.pop(here)
        real = {name: (here / name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [name for name, path in real.items() if not _leads_back(path, trail)]
        trails |= {here / name: (*trail, real[name]) for name in folders}
        below = here.relative_to(folder)
        names += [(below / name).as_posix() for name in found if _is_image(name)]
    if not names:
        raise DataError(f"{folder} must hold image files ({', '.join(SUFFIXES)}), but has none")
    return tuple(sorted(names))


def _leads_back(path: Path, trail: tuple[Path, ...]) -> bool:
    """Whether the folder at `path` is one of those that led to it, or holds one of them: a loop."""
    return any(passed.is_relative_to(path) for passed in trail)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _labels(splits: dict[str, SplitFolder]) -> dict[str, np.ndarray]:
    of_split = {name: split.class_names() for name, split in splits.items()}
    if any(names is None for names in of_split.values()):
        return {}
    classes = sorted(set(of_split["train"] or ()))
    if len(classes) < 2 or any(not set(names or ()) <= set(classes) for names in of_split.values()):
        return {}
    index = {name: number for number, name in enumerate(classes)}
    return {split: np.array([index[name] for name in names or ()], np.int64) for split, names in of_split.items()}
