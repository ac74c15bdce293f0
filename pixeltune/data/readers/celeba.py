"""CelebA at 64×64: the aligned faces, cropped to 148×148 as Larsen et al. 2016 (arXiv 1512.09300) do, resized to 64×64.

The crop is the box from (15, 40) to (163, 188) of an aligned image of 178×218; Pillow's bilinear filter resizes it.
Real NVP, NVAE and VDVAE train on this crop; others cut 140×140 or 128×128, which are other data sets. Splits are those
of list_eval_partition.txt. A decoder of JPEG may differ in the last bit, so a published number was measured on nearly
these pixels: the version is never one that counts as the published images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import OTHER_FILES, RawData
from pixeltune.data.readers.downloads import require_paths
from pixeltune.data.readers.image_decoder import Decoder, EncodedImage
from pixeltune.data.readers.listing import Ignored
from pixeltune.errors import DataError
from pixeltune.format import listed
from pixeltune.published_sets import PublishedSet

if TYPE_CHECKING:
    from PIL import Image

_ALIGNED = (178, 218)
_BOX = (15, 40, 163, 188)
_SPLITS = ("train", "valid", "test")


def files(published: PublishedSet, config: DataConfig) -> list[Path]:
    """Return the list of the splits and every image that it names."""
    folder, partition = require_paths(published, config)
    return [partition, *(folder / name for names in _splits(folder, partition).values() for name in names)]


def ignored(published: PublishedSet, config: DataConfig) -> tuple[Ignored, ...]:
    """Return the files among the images that the list of the splits does not name."""
    folder, partition = require_paths(published, config)
    taken = {name for names in _splits(folder, partition).values() for name in names}
    return tuple(
        Ignored(f"{folder.name}/{path.name}", f"not in {partition.name}")
        for path in sorted(folder.iterdir())
        if path.name not in taken
    )


def read(published: PublishedSet, config: DataConfig) -> RawData:
    """Return (N, 3, 64, 64) in the official splits, without labels."""
    folder, partition = require_paths(published, config)
    splits = _splits(folder, partition)
    side = published.shape[1]
    decoder = Decoder(config, crop=lambda image, name: _cropped(image, name, side))
    sets = {
        split: ImageSet(
            decoder.decode_all((EncodedImage(str(folder / name), folder / name) for name in names), len(names))
        )
        for split, names in splits.items()
    }
    counts = tuple(len(each) for each in sets.values())
    is_whole = counts == (published.num_train, published.num_valid, published.num_test)
    return RawData.of(sets, version=published.version if is_whole else OTHER_FILES)


def _splits(folder: Path, partition: Path) -> dict[str, list[str]]:
    """Return the names of each split's images; a line of the list is a name and 0, 1 or 2."""
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for number, line in enumerate(partition.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2") or "/" in words[0]:
            raise DataError(
                f"{partition} must have a name and 0, 1 or 2 a line, but line {number} is {line[:80]!r}; copy it again"
            )
        splits[_SPLITS[int(words[1])]].append(words[0])
    missing = [name for names in splits.values() for name in names if not (folder / name).is_file()]
    empty = [split for split, names in splits.items() if not names]
    if missing or empty:
        what = f"{listed(missing, most=2)} missing" if missing else f"no image of {empty[0]}"
        raise DataError(f"{folder} must hold every image of {partition.name}, but has {what}; unpack it again")
    return splits


def _cropped(image: Image.Image, name: str, side: int) -> Image.Image:
    from PIL import Image

    if image.size != _ALIGNED:
        width, height = image.size
        raise DataError(
            f"images of celeba64 must be the aligned ones of {_ALIGNED[0]}×{_ALIGNED[1]}, but {name} is "
            f"{width}×{height}; take img_align_celeba.zip, or source folder"
        )
    return image.crop(_BOX).resize((side, side), Image.Resampling.BILINEAR)
