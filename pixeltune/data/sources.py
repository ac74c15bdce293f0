"""Every source of images, by name. A new one is a reader and one line here; a user's own needs not even that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import Layout, RawData
from pixeltune.data.readers import (
    arrays,
    celeba,
    digits,
    folders,
    imagenet,
    matlab,
    mnist_static,
    parquet,
    torchvision_sets,
)
from pixeltune.data.readers.downloads import require_paths
from pixeltune.data.readers.listing import Ignored
from pixeltune.errors import ConfigError, DataError, PixeltuneError, did_you_mean
from pixeltune.own_code import code_files, error_text, import_object
from pixeltune.published_sets import (
    CELEBA64,
    CIFAR10,
    DIGITS,
    EMNIST,
    FASHION_MNIST,
    IMAGENET32,
    IMAGENET64,
    MNIST,
    MNIST_STATIC,
    OMNIGLOT,
    SVHN,
    PublishedSet,
)


@dataclass(frozen=True)
class Source:
    """A source of images.

    read: decodes everything. files: the files that `read` will read, downloaded first where that is allowed; they
        represent the content in the cache's key. None: not cached on the node.
    ignored: what is below the data folder and not read, with the reason; None for a source that names its files.
    num_valid: images carved as validation unless `data.num_valid` is set; None for a tenth of train, at most 10,000.
    resizes, greys: `read` itself follows `data.resize` and `data.grey`.
    published: what is known of it without its files; None where each user has files of their own.
    """

    read: Callable[[DataConfig], RawData]
    files: Callable[[DataConfig], Sequence[Path]] | None
    num_valid: int | None = None
    resizes: bool = False
    greys: bool = False
    published: PublishedSet | None = None
    ignored: Callable[[DataConfig], Sequence[Ignored]] | None = None


def _published_source(
    published: PublishedSet,
    read: Callable[[PublishedSet, DataConfig], RawData],
    *,
    files: Callable[[PublishedSet, DataConfig], Sequence[Path]] = require_paths,
    num_valid: int | None = None,
    greys: bool = False,
    ignored: Callable[[PublishedSet, DataConfig], Sequence[Ignored]] | None = None,
) -> Source:
    """Return the source of a published set, given functions that take the set first; the rest as in `Source`."""
    return Source(
        partial(read, published),
        partial(files, published),
        num_valid=num_valid,
        greys=greys,
        published=published,
        ignored=None if ignored is None else partial(ignored, published),
    )


def _imagenet(published: PublishedSet) -> Source:
    return _published_source(published, imagenet.read, files=imagenet.files, greys=True, ignored=imagenet.ignored)


SOURCES: dict[str, Source] = {
    "digits": Source(digits.read, digits.files, num_valid=digits.NUM_VALID, published=DIGITS),
    "mnist": _published_source(MNIST, torchvision_sets.read_idx, num_valid=10_000),
    "mnist_static": _published_source(MNIST_STATIC, mnist_static.read),
    "fashion_mnist": _published_source(FASHION_MNIST, torchvision_sets.read_idx, num_valid=10_000),
    "emnist": _published_source(EMNIST, torchvision_sets.read_idx, num_valid=10_000),
    "omniglot": _published_source(OMNIGLOT, matlab.read_omniglot, num_valid=1_345),
    "cifar10": _published_source(CIFAR10, torchvision_sets.read_cifar10, num_valid=5_000),
    "svhn": _published_source(SVHN, matlab.read_svhn, num_valid=5_000),
    "imagenet32": _imagenet(IMAGENET32),
    "imagenet64": _imagenet(IMAGENET64),
    "celeba64": _published_source(CELEBA64, celeba.read, files=celeba.files, greys=True, ignored=celeba.ignored),
    "folder": Source(folders.read, folders.files, resizes=True, greys=True, ignored=folders.ignored),
    "parquet": Source(parquet.read, parquet.files, resizes=True, greys=True, ignored=parquet.ignored),
    "array": Source(arrays.read, arrays.files),
}


def source_of(name: str) -> Source:
    """Return the source of that name, or the user's function that `package.module:function` names."""
    if name in SOURCES:
        return SOURCES[name]
    if ":" in name:
        return _own_source(name)
    hint = did_you_mean(name, SOURCES)
    raise ConfigError(
        f"`data.name` must be one of {', '.join(SOURCES)} or package.module:function, but got {name!r}"
        + (f" ({hint})" if hint else "")
    )


def _own_source(name: str) -> Source:
    """Return a function DataConfig -> RawData. With an attribute `files` (DataConfig -> paths) the node caches it."""
    function = _import(name)
    files: Callable[[DataConfig], Any] | None = getattr(function, "files", None)

    def read(config: DataConfig) -> Any:
        with _in_own_code(name):
            raw = function(config)
        return _colours_first(raw, name) if isinstance(raw, RawData) else raw

    if files is None:
        return Source(read, files=None)

    def list_files(config: DataConfig) -> list[Path]:
        with _in_own_code(f"{name}.files"):
            return [*map(Path, files(config)), *code_files(name, function)]

    return Source(read, list_files)


def _colours_first(raw: RawData, name: str) -> RawData:
    """Return the images of a user's own function as (N, C, H, W)."""
    splits = {}
    for split, images in ({"train": raw.train} | raw.splits).items():
        where = f"{split} of source {name}"
        if not isinstance(images, ImageSet):
            raise DataError(f"{where} must be a pixeltune.data.ImageSet, but got {type(images).__name__}")
        splits[split] = replace(images, pixels_NCHW=_in_layout(images.pixels_NCHW, raw.layout, where))
    return RawData.of(splits, levels=raw.levels, version=raw.version, layout="NCHW")


def _in_layout(pixels: np.ndarray, layout: str, where: str) -> np.ndarray:
    """Return images of a layout as (N, C, H, W); other shapes than four axes are left to `require_sound`."""
    if layout not in get_args(Layout):
        raise DataError(f"the layout of {where} must be one of {', '.join(get_args(Layout))}, but got {layout!r}")
    if layout != "auto":
        return np.moveaxis(pixels, 3, 1) if layout == "NHWC" and pixels.ndim == 4 else pixels
    try:
        return arrays.to_nchw(pixels, where)
    except DataError as error:
        if pixels.ndim != 4 or pixels.dtype != np.uint8:
            raise
        raise DataError(f'{error}; give its layout, as RawData(…, layout="NCHW")') from None


@contextmanager
def _in_own_code(name: str) -> Iterator[None]:
    """Report what a user's own function raises in one line; a lack of memory is left to the callers that handle it."""
    try:
        yield
    except (PixeltuneError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"source {name} must return, but raised {error_text(error)}; fix the function") from error


def _import(name: str) -> Callable[[DataConfig], Any]:
    try:
        function: Callable[[DataConfig], Any] = import_object(name)
    except Exception as error:  # the user's module may raise anything
        raise DataError(
            f"`data.name` must name an importable package.module:function, but got {name!r} "
            f"({error_text(error)}); install the package or put its folder on PYTHONPATH"
        ) from error
    if not inspect.isfunction(function):
        raise DataError(f"`data.name` must name a function, but {name!r} is a {type(function).__name__}")
    return function
