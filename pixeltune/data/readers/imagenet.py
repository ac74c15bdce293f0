"""ImageNet at 32×32 and 64×64, in both published versions, which are 0.26 bits/dim apart for one method.

The old one (van den Oord et al. 2016) is two archives of PNG files, read as they are or unpacked. The new one
(Chrabaszcz et al. 2017) is ten batches of training images and one of validation: .npz files with `data`
(N, 3·H·W) uint8, colour planes one after the other, `labels` 1..1000, and `mean`. ImageNet publishes no labels or
pixels of its test set: numbers are reported on `valid`, which is our test set; validation is carved from train.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.prepare import luma
from pixeltune.data.raw import OTHER_FILES, RawData
from pixeltune.data.readers.downloads import require_paths
from pixeltune.data.readers.folders import read_splits
from pixeltune.data.readers.image_decoder import Decoder, EncodedImage
from pixeltune.data.readers.listing import IMAGE_SUFFIXES, Ignored, SplitFolder, scan_files
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError
from pixeltune.published_sets import PublishedSet, file_digest

_SPLITS = ("train", "test")
_NPZ_MD5 = {
    32: {
        "train_data_batch_1.npz": "464fde20de6eb44c28cc1a8c11544bb1",
        "train_data_batch_2.npz": "bdb56e71882c3fd91619d789d5dd7c79",
        "train_data_batch_3.npz": "83ff36d76ea26867491a281ea6e1d03b",
        "train_data_batch_4.npz": "98ff184fe109d5c2a0f6da63843880c7",
        "train_data_batch_5.npz": "62b8803e13c3e6de9498da7aaaae57c8",
        "train_data_batch_6.npz": "e0b06665f890b029f1d8d0a0db26e119",
        "train_data_batch_7.npz": "9731f469aac1622477813c132c5a847a",
        "train_data_batch_8.npz": "60aed934b9d26b7ee83a1a83bdcfbe0f",
        "train_data_batch_9.npz": "b96328e6affd718660c2561a6fe8c14c",
        "train_data_batch_10.npz": "1dc618d544c554220dd118f72975470c",
        "val_data.npz": "a8c04a389f2649841fb7a01720da9dd9",
    }
}
"""MD5 sums of the new version's files at 32×32, as public readers of the set list them; for 64×64 none are known."""


def files(published: PublishedSet, config: DataConfig) -> list[Path]:
    """Return every file that is read: images or archives of the old version, or batches of the new one."""
    edition, paths = _require_edition(published, config)
    if edition is not published:
        return paths
    return [path for part in _old_parts(paths, config) for path in part.files]


def ignored(published: PublishedSet, config: DataConfig) -> tuple[Ignored, ...]:
    """Return what is in the folders of the old version and not read."""
    edition, paths = _require_edition(published, config)
    if edition is not published:
        return ()
    return tuple(each for part in _old_parts(paths, config) if part.folder for each in part.folder.ignored)


def read(published: PublishedSet, config: DataConfig) -> RawData:
    """Return the version that is there; its published `valid` is our test set.

    The version is recognised by the archives' digests or, unpacked, by the number of images: the old one lacks 18
    training images and one of validation. Images of one's own making in the number of the new version are "other".
    """
    edition, paths = _require_edition(published, config)
    raw = _read_old(edition, paths, config) if edition is published else _read_new(edition, paths, config)
    channels, height, width = published.shape
    shape = raw.train.pixels_NCHW.shape[1:]
    if shape != (1 if config.grey else channels, height, width):
        raise DataError(
            f"images of {published.name} must be {channels} colours of {height}×{width}, but got {shape}; "
            "take source folder"
        )
    return raw


def _require_edition(published: PublishedSet, config: DataConfig) -> tuple[PublishedSet, list[Path]]:
    root = published.root(config.path)
    found = published.editions_in(root)
    if len(found) > 1:
        raise DataError(
            f"{root} must hold one version of {published.name}, but has files of {found[0].version} and of "
            f"{found[1].version}; move one of them, and set `data.path`"
        )
    edition = found[0] if found else published
    return edition, require_paths(edition, config)


@dataclass(frozen=True)
class _OldPart:
    """One split of the old version. folder: its unpacked images; None for an archive."""

    path: Path
    folder: SplitFolder | None

    @property
    def files(self) -> list[Path]:
        """Return the files that are read."""
        return [self.path] if self.folder is None else self.folder.paths


def _old_parts(paths: Sequence[Path], config: DataConfig) -> list[_OldPart]:
    return [_OldPart(path, _scanned(path, config) if path.is_dir() else None) for path in paths]


def _scanned(folder: Path, config: DataConfig) -> SplitFolder:
    return scan_files(folder, folder.parent, suffixes=IMAGE_SUFFIXES, kind="image", follow_links=config.follow_links)


def _read_old(published: PublishedSet, paths: Sequence[Path], config: DataConfig) -> RawData:
    parts = dict(zip(_SPLITS, _old_parts(paths, config), strict=True))
    folders = {split: part.folder for split, part in parts.items() if part.folder is not None}
    if len(folders) == len(parts):
        counts = tuple(len(folder.names) for folder in folders.values())
        is_whole = counts == (published.num_train, published.num_test)
        return read_splits(folders, config, version=published.version if is_whole else OTHER_FILES)
    decoder = Decoder(config)
    sets = {split: ImageSet(_decoded(part, decoder)) for split, part in parts.items()}
    known = all(
        part.folder is None and not archive.fault(part.path)
        for part, archive in zip(parts.values(), published.archives, strict=True)
    )
    return RawData.of(sets, version=published.version if known else OTHER_FILES)


def _decoded(part: _OldPart, decoder: Decoder) -> np.ndarray:
    if part.folder is not None:
        return decoder.decode_all((EncodedImage(str(path), path) for path in part.folder.paths), len(part.folder.names))
    members = _tar_members(part.path)
    return decoder.decode_all(_tar_pictures(part.path, members), len(members))


def _tar_members(path: Path) -> list[tuple[str, int, int]]:
    """Return name, offset and size of each image of an archive, in the order of their names."""
    members = []
    try:
        with tarfile.open(path, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                    members.append((member.name, member.offset_data, member.size))
                vars(archive)["members"] = []  # it would keep a million of them, which take a GB
    except (OSError, tarfile.TarError, EOFError) as error:
        raise _not_whole(path, "tar archive", error) from error
    if not members:
        raise DataError(f"{path} must hold image files, but has none; remove it, or copy it again")
    return sorted(members)


def _tar_pictures(path: Path, members: Sequence[tuple[str, int, int]]) -> Iterator[EncodedImage]:
    with path.open("rb") as stream:
        for name, offset, size in members:
            stream.seek(offset)
            yield EncodedImage(f"{name} of {path}", stream.read(size))


def _read_new(published: PublishedSet, paths: Sequence[Path], config: DataConfig) -> RawData:
    side = published.shape[1]
    sets = {
        "train": _read_batches(paths[:-1], side, grey=config.grey),
        "test": _read_batches(paths[-1:], side, grey=config.grey),
    }
    return RawData.of(sets, version=_version_of_new(published, paths, sets))


def _version_of_new(published: PublishedSet, paths: Sequence[Path], sets: dict[str, ImageSet]) -> str:
    if (len(sets["train"]), len(sets["test"])) != (published.num_train, published.num_test):
        return OTHER_FILES
    sums = _NPZ_MD5.get(published.shape[1])
    if sums is not None and any(file_digest(path, "md5") != sums[path.name] for path in paths):
        return OTHER_FILES
    return published.version


def _read_batches(paths: Sequence[Path], side: int, *, grey: bool) -> ImageSet:
    """Return the images of these files in one array, filled file by file: the whole set is many GB."""
    counts = [_count_of(path, side) for path in paths]
    pixels_NCHW = np.empty((sum(counts), 1 if grey else 3, side, side), dtype=np.uint8)
    labels_N = np.empty(len(pixels_NCHW), dtype=np.int64)
    start = 0
    for path, count in zip(paths, counts, strict=True):
        data, labels = _read_batch(path)
        if data.shape != (count, 3 * side * side) or data.dtype != np.uint8 or labels.shape != (count,):
            raise _not_whole(
                path, "batch of the set", f"data is {data.dtype} of shape {data.shape}, labels {labels.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.min() < 1:
            raise _not_whole(path, "batch of the set", "its labels are not integers from 1 on")
        planes = data.reshape(count, 3, side, side)
        pixels_NCHW[start : start + count] = luma(planes) if grey else planes
        labels_N[start : start + count] = labels.astype(np.int64) - 1
        start += count
    return ImageSet(pixels_NCHW, labels_N)


def _count_of(path: Path, side: int) -> int:
    """Return the number of images of a batch, from the head of its array."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("data.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read_head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, _ = read_head[version](stream)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _not_whole(path, ".npz file with data and labels", error) from error
    if len(shape) != 2 or shape[1] != 3 * side * side or shape[0] == 0:
        raise _not_whole(path, "batch of the set", f"data has shape {shape}, not (images, {3 * side * side})")
    return int(shape[0])


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return archive["data"], archive["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _not_whole(path, ".npz file with data and labels", error) from error


def _not_whole(path: Path, kind: str, reason: BaseException | str) -> DataError:
    words = in_one_line(reason) if isinstance(reason, BaseException) else reason
    return DataError(f"{path} must be a whole {kind}, but is not: {words}; remove it, or copy it again")
