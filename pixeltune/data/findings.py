"""What a reader of numbers should know of a data set: images in two splits, and labels that do not count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData

_DIGEST_BYTES = 16


def findings_of(raw: RawData) -> tuple[str, ...]:
    """Return one line for each finding; nothing is changed or left out for it."""
    return (*_shared_images(raw), *_unlabelled(raw))


def _shared_images(raw: RawData) -> Iterator[str]:
    """Find training and validation images that the test set has an exact copy of."""
    if raw.test is None:
        return
    in_test = set(_image_digests(raw.test))
    for name, split in (("training", raw.train), ("validation", raw.valid)):
        if split is None:
            continue
        shared = sum(digest in in_test for digest in _image_digests(split))
        if shared:
            yield f"{shared:,} of the {len(split):,} {name} images are also in the test set, pixel by pixel"


def _image_digests(split: ImageSet) -> Iterator[bytes]:
    for image in split.pixels_NCHW:
        yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=_DIGEST_BYTES).digest()


def _unlabelled(raw: RawData) -> Iterator[str]:
    """Explain why labels that some images have do not count."""
    if raw.num_classes() is not None or all(split.labels_N is None for split in raw.splits.values()):
        return
    for name, split in raw.splits.items():
        if split.labels_N is None:
            yield f"labels are not used: the {name} images have none"
            return
        unlabelled = int((split.labels_N < 0).sum())
        if unlabelled:
            yield f"labels are not used: {unlabelled:,} of the {len(split):,} {name} images have the label -1, for none"
            return
