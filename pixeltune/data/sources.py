"""Every source of images, by name. A new one is a reader and one line here; a user's own needs not even that."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.raw import Layout, RawData
from pixeltune.data.readers import arrays, digits, folders, tables, torchvision_sets
from pixeltune.data.readers.places import in_one_line
from pixeltune.data.sets import ImageSet
from pixeltune.errors import ConfigError, DataError, PixeltuneError
from pixeltune.published_sets import CIFAR10, DIGITS, FASHION_MNIST, IMAGENET32, IMAGENET64, MNIST, PublishedSet


@dataclass(frozen=True)
class Source:
    """Where images come from.

    read: decodes everything. files: the files that `read` will read, fetched first where that is allowed; they
        stand for the content in the cache's key. None: not cached on the node.
    num_valid: images carved as validation unless told; None for a tenth of train, at most 10,000.
    resizes, greys: `read` itself follows `data.resize` and `data.grey`.
    published: what is known of it without its files; None where each user has files of their own.
    """

    read: Callable[[DataConfig], RawData]
    files: Callable[[DataConfig], Sequence[Path]] | None
    num_valid: int | None = None
    resizes: bool = False
    greys: bool = False
    published: PublishedSet | None = None


def _idx(published: PublishedSet) -> Source:
    read, files = partial(torchvision_sets.read_idx, published), partial(torchvision_sets.idx_files, published)
    return Source(read, files, num_valid=10_000, published=published)


def _imagenet(published: PublishedSet) -> Source:
    read, files = partial(folders.read_imagenet, published), partial(folders.imagenet_files, published)
    return Source(read, files, greys=True, published=published)


SOURCES: dict[str, Source] = {
    "digits": Source(digits.read, digits.files, num_valid=digits.NUM_VALID, published=DIGITS),
    "mnist": _idx(MNIST),
    "fashion_mnist": _idx(FASHION_MNIST),
    "cifar10": Source(
        torchvision_sets.read_cifar10,
        torchvision_sets.cifar10_files,
        num_valid=5_000,
        published=CIFAR10,
    ),
    "folder": Source(folders.read, folders.files, resizes=True, greys=True),
    "imagenet32": _imagenet(IMAGENET32),
    "imagenet64": _imagenet(IMAGENET64),
    "parquet": Source(tables.read, tables.files, resizes=True, greys=True),
    "array": Source(arrays.read, arrays.files),
}


def source_of(name: str) -> Source:
    """The source of that name, or the user's function that `package.module:function` names."""
    if name in SOURCES:
        return SOURCES[name]
    if ":" in name:
        return _own_source(name)
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(
        f"`data.name` must be one of {', '.join(SOURCES)} or package.module:function, but got {name!r}{hint}"
    )


def _own_source(name: str) -> Source:
    """A function DataConfig -> RawData. With an attribute `files` (DataConfig -> paths) it is cached on the node."""
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
            return [*map(Path, files(config)), Path(inspect.getfile(inspect.unwrap(function)))]

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
    """What a user's own function raises becomes one line; a lack of memory is left to those who know what to do."""
    try:
        yield
    except (PixeltuneError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"source {name} must return, but raised {type(error).__name__}: {in_one_line(error)}; mend the function"
        ) from error


def _import(name: str) -> Callable[[DataConfig], Any]:
    module_name, _, function_name = name.partition(":")
    try:
        function: Callable[[DataConfig], Any] = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the user's module may raise anything
        raise DataError(
            f"`data.name` must name an importable package.module:function, but got {name!r} "
            f"({type(error).__name__}: {in_one_line(error)}); install the package or put its folder on PYTHONPATH"
        ) from error
    if not inspect.isfunction(function):
        raise DataError(f"`data.name` must name a function, but {name!r} is a {type(function).__name__}")
    return function
