"""Parquet in the Hugging Face image layout: train*.parquet, and valid(ation)*.parquet, test*.parquet beside it.

Column `image` or `img`: struct {bytes, path} or plain bytes of an image file. Column `label`: integers, optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.raw import RawData
from pixeltune.data.readers.pictures import Decoder, Picture
from pixeltune.data.readers.places import given_path, in_one_line
from pixeltune.data.sets import ImageSet
from pixeltune.errors import DataError

_PATTERNS = {"train": ("train*.parquet",), "valid": ("valid*.parquet", "val-*.parquet"), "test": ("test*.parquet",)}
_IMAGE_COLUMNS = ("image", "img")


def files(config: DataConfig) -> list[Path]:
    """Every Parquet file of every split."""
    return [file for split in _scan(given_path(config)).values() for file in split]


def read(config: DataConfig) -> RawData:
    """All images, decoded."""
    decoder = Decoder(config)
    sets = {name: _read_split(split, decoder) for name, split in _scan(given_path(config)).items()}
    return RawData.of(sets)


def _scan(root: Path) -> dict[str, list[Path]]:
    folder = root / "data" if (root / "data").is_dir() else root
    splits = {
        name: sorted(file for pattern in patterns for file in folder.glob(pattern))
        for name, patterns in _PATTERNS.items()
    }
    if not splits["train"]:
        raise DataError(f"{folder} must be a folder with train*.parquet, but has none")
    return {name: found for name, found in splits.items() if found}


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


def _pictures(path: Path, table: Any) -> Iterator[Picture]:
    column = next((name for name in _IMAGE_COLUMNS if name in table.schema_arrow.names), None)
    if column is None:
        raise DataError(f"{path} must have a column image or img, but has {', '.join(table.schema_arrow.names)}")
    row = 0
    for batch in _batches(path, table, column):
        for value in batch:
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(f"{path} must hold the bytes of every image, but row {row} has none")
            yield Picture(f"row {row} of {path}", content)
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
