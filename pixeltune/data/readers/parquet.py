"""Parquet in the Hugging Face image layout: train*.parquet, and next to it validation and test, or a folder a split.

A file belongs to the split whose name is a word of its own: train-00000-of-00002.parquet, my_train.parquet. Validation
is valid, val, validation, dev or eval. Column `image` or `img`: struct {bytes, path} or plain bytes of an image file.
Column `label`: integers, optional.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.dataset import ImageSet
from pixeltune.data.raw import RawData
from pixeltune.data.readers.image_decoder import Decoder, EncodedImage
from pixeltune.data.readers.listing import SPLIT_NAMES, Ignored, Walk, entries_except, split_folders
from pixeltune.data.readers.paths import given_path, in_one_line
from pixeltune.errors import DataError
from pixeltune.format import is_or_are, listed

_SUFFIX = ".parquet"
_IMAGE_COLUMNS = ("image", "img")
_SHARD = re.compile(r"(?P<stem>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?P<digest>-[0-9a-f]{8,})?")
"""Such as train-00000-of-00002, or with a digest behind it, as older releases of Hugging Face datasets write it."""
_SPLIT_OF_WORD = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def files(config: DataConfig) -> list[Path]:
    """Return every Parquet file of every split."""
    splits, _ = _scan(config)
    return [file for split in splits.values() for file in split]


def ignored(config: DataConfig) -> tuple[Ignored, ...]:
    """Return what is below the folder and not read, columns of labels among them."""
    splits, left = _scan(config)
    return (*_label_columns(splits["train"][0]), *left)


def read(config: DataConfig) -> RawData:
    """Return all images, decoded."""
    decoder = Decoder(config)
    splits, _ = _scan(config)
    return RawData.of({name: _read_split(split, decoder) for name, split in splits.items()})


def _scan(config: DataConfig) -> tuple[dict[str, list[Path]], tuple[Ignored, ...]]:
    """Return the files of each split, and what else is there."""
    root = given_path(config)
    folder = root / "data" if (root / "data").is_dir() else root
    walk = Walk(folder, root, (_SUFFIX,), "Parquet", config.follow_links)
    walk.run()
    folders = {path.name: split for split, path in split_folders(folder, SPLIT_NAMES).items()}
    splits: dict[str, list[Path]] = defaultdict(list)
    left = list(walk.ignored)
    for name in sorted(walk.names):
        split = _split_of(name, folders, folder)
        if split is None:
            left.append(Ignored(walk.named(name), "in the name of no split"))
        else:
            splits[split].append(folder / name)
    if not splits["train"]:
        raise DataError(f"{folder} must be a folder with train*.parquet, but has none")
    for split, paths in splits.items():
        _require_one_set(split, paths, folder)
    if folder != root:
        left += entries_except([folder.name], root, "not in data/")
    return {split: splits[split] for split in SPLIT_NAMES if splits[split]}, tuple(left)


def _split_of(name: str, folders: dict[str, str], folder: Path) -> str | None:
    """Return the split of a file, by the folder that it is in or by the words of its name; None for neither."""
    top, slash, _ = name.partition("/")
    if slash:
        return folders.get(top)
    words = re.split(r"[^a-z]+", name.lower().removesuffix(_SUFFIX))
    named = {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}
    if len(named) > 1:
        raise DataError(
            f"a file must be of one split, but {folder / name} has the names of {' and '.join(sorted(named))}; "
            "rename it"
        )
    return next(iter(named), None)


def _require_one_set(split: str, paths: Sequence[Path], folder: Path) -> None:
    """Refuse a set of shards that lacks some, and files that may hold the same images twice."""
    sets: dict[tuple[Path, str], dict[int | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        shard = _SHARD.fullmatch(path.stem)
        if shard is None:
            sets[path.parent, path.stem][None].append(0)
        else:
            sets[path.parent, shard["stem"]][int(shard["total"])].append(int(shard["number"]))
    for (parent, stem), by_total in sets.items():
        for total, numbers in by_total.items():
            missing = [] if total is None else sorted(set(range(total)) - set(numbers))
            if missing:
                names = [_shard_name(paths, parent, stem, total or 0, number) for number in missing]
                raise DataError(
                    f"{parent} must hold all {total} shards of {stem or split}, but {listed(names, most=5)} "
                    f"{is_or_are(len(names))} missing; copy them there"
                )
        if len(by_total) > 1 or any(len(set(numbers)) < len(numbers) for numbers in by_total.values()):
            raise DataError(
                f"{parent} must hold the {split} images once, but has {stem or split} in more than one set of files; "
                "remove one"
            )
    outside = [path for path in paths if path.parent == folder]
    inside = [path for path in paths if path.parent != folder]
    if outside and inside:
        raise DataError(
            f"{folder} must hold the {split} images once, but has {outside[0].name} and the folder "
            f"{inside[0].relative_to(folder).parts[0]}; remove one of them"
        )


def _shard_name(paths: Sequence[Path], parent: Path, stem: str, total: int, number: int) -> str:
    """Return the name that a missing shard has, after one that is there."""
    for path in paths:
        shard = _SHARD.fullmatch(path.stem)
        if shard and path.parent == parent and shard["stem"] == stem and int(shard["total"]) == total:
            start, end = shard.span("number")
            rest = path.stem[end : shard.end("total")] + ("-*" if shard["digest"] else "")
            return f"{path.stem[:start]}{number:0{end - start}}{rest}{_SUFFIX}"
    raise AssertionError("a set of shards has at least one file")


def _label_columns(path: Path) -> list[Ignored]:
    """Return the columns that look like labels, where there is none of the name `label`."""
    names = _open(path).schema_arrow.names
    if "label" in names:
        return []
    return [
        Ignored(f"column {name}", "labels are read from a column label") for name in names if "label" in name.lower()
    ]


def _read_split(paths: list[Path], decoder: Decoder) -> ImageSet:
    tables = [_open(path) for path in paths]
    count = sum(table.metadata.num_rows for table in tables)
    if count == 0:
        raise DataError(f"{paths[0]} must hold images, but has no row")
    pictures = (picture for path, table in zip(paths, tables, strict=True) for picture in _pictures(path, table))
    return ImageSet(decoder.decode_all(pictures, count), _labels(paths, tables))


def _open(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} must be a whole Parquet file, but is not: {in_one_line(error)}") from error


def _pictures(path: Path, table: Any) -> Iterator[EncodedImage]:
    column = next((name for name in _IMAGE_COLUMNS if name in table.schema_arrow.names), None)
    if column is None:
        raise DataError(f"{path} must have a column image or img, but has {', '.join(table.schema_arrow.names)}")
    row = 0
    for batch in _batches(path, table, column):
        for value in batch:
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(f"{path} must hold the bytes of every image, but row {row} has none")
            yield EncodedImage(f"row {row} of {path}", content)
            row += 1


def _labels(paths: list[Path], tables: list[Any]) -> np.ndarray | None:
    if any("label" not in table.schema_arrow.names for table in tables):
        return None
    labels = [
        label for path, table in zip(paths, tables, strict=True) for batch in _batches(path, table, "label")
        for label in batch
    ]  # fmt: skip
    if not all(isinstance(label, int) for label in labels):
        raise DataError(f"column label of {paths[0]} must hold integers, but holds others; remove or convert it")
    return np.array(labels, dtype=np.int64)


def _batches(path: Path, table: Any, column: str) -> Iterator[list[Any]]:
    import pyarrow as pa

    try:
        for batch in table.iter_batches(batch_size=1024, columns=[column]):
            yield batch.column(0).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} must be a whole Parquet file, but is not: {in_one_line(error)}") from error
