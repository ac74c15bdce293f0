"""Arrays in a file: .npy (train only) or .npz (train, and what there is of valid, test, *_labels and levels).

Validation may also be called val, validation, dev or eval.

uint8. (N, H, W) is grey. (N, …) with 1 or 3 on exactly one of axis 1 and the last axis has its colours there; with
neither, axis 1 has them if it is 4 or less and the last axis is not. Anything else is refused rather than guessed.
Levels are 0..255 unless the .npz has a scalar `levels`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers.listing import SPLIT_NAMES
from pixeltune.data.readers.paths import given_path, in_one_line
from pixeltune.errors import DataError

_NAMES = tuple(name for names in SPLIT_NAMES.values() for name in names)
_KNOWN = (*_NAMES, *(f"{name}_labels" for name in _NAMES), "levels")


def files(config: DataConfig) -> list[Path]:
    """Return the one file."""
    path = given_path(config)
    if path.suffix not in (".npy", ".npz") or not path.is_file():
        raise DataError(f"`data.path` must be a .npy or .npz file for source array, but got {path}")
    return [path]


def read(config: DataConfig) -> RawData:
    """Read every array of the file, as (N, C, H, W)."""
    (path,) = files(config)
    arrays = _load(path)
    if "train" not in arrays:
        raise DataError(f"{path.name} must hold an array `train`, but has {', '.join(arrays) or 'nothing'}")
    splits = {split: _split(arrays, name, path) for split, name in _present(arrays, path).items()}
    return RawData.of(splits, levels=_levels(arrays, path))


def _present(arrays: dict[str, np.ndarray], path: Path) -> dict[str, str]:
    """Return the array of each split; DataError for two of one split, or labels without images."""
    present = {}
    for split, names in SPLIT_NAMES.items():
        found = [name for name in names if name in arrays]
        if len(found) > 1:
            raise DataError(f"{path.name} must hold one {split} array, but has {found[0]} and {found[1]}; remove one")
        if found:
            present[split] = found[0]
    stray = [name for name in arrays if name.endswith("_labels") and name.removesuffix("_labels") not in arrays]
    if stray:
        raise DataError(
            f"{path.name} must hold the images of its labels, but has {stray[0]} without "
            f"{stray[0].removesuffix('_labels')}; rename or remove it"
        )
    return present


def to_nchw(pixels: np.ndarray, where: str) -> np.ndarray:
    """Return (N, C, H, W), by the rule at this module's head; DataError where the rule does not decide."""
    if pixels.dtype != np.uint8:
        raise DataError(f"{where} must be uint8, but got {pixels.dtype}; convert it, values as levels 0..K-1")
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4:
        for colours in ((1, 3), (1, 2, 3, 4)):
            first, last = pixels.shape[1] in colours, pixels.shape[3] in colours
            if first != last:
                return pixels if first else np.moveaxis(pixels, 3, 1)
            if first and last:
                break
    raise DataError(
        f"{where} must be (N, H, W), or (N, H, W, C) or (N, C, H, W) with C 1 or 3 to show which, but got "
        f"{pixels.shape}"
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npy":
            return {"train": np.lib.format.open_memmap(path, mode="r")}
        # numpy would leave a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            unknown = [name for name in archive.files if name not in _KNOWN]
            if unknown:
                raise DataError(f"{path.name} may hold {', '.join(_KNOWN)}, but has {unknown[0]}; rename or remove it")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} must be a whole {path.suffix} file, but is not: {in_one_line(error)}") from error


def _split(arrays: dict[str, np.ndarray], name: str, path: Path) -> ImageSet:
    return ImageSet(to_nchw(arrays[name], f"`{name}` of {path.name}"), arrays.get(f"{name}_labels"))


def _levels(arrays: dict[str, np.ndarray], path: Path) -> int:
    levels = arrays.get("levels", np.array(256))
    if levels.size != 1 or levels.dtype.kind not in "iu":
        raise DataError(f"`levels` of {path.name} must be one integer, but got {levels.dtype} of shape {levels.shape}")
    return int(levels.item())
