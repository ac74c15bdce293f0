"""Small sets of every kind on disk: one maker a source, so that tests run over the dict of sources."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltune.config import DataConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def shared(name: str) -> Path:
    """The real set of that name, or a skip."""
    if not (SHARED / name).exists():
        pytest.skip(f"needs the real images in ../shared/data/{name}, which are not here")
    return SHARED / name


def random_pixels(*shape: int, seed: int = 0, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8)


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_array(root: Path) -> DataConfig:
    root.mkdir(parents=True, exist_ok=True)
    labels_N = np.arange(60) % 3
    np.savez(
        root / "set.npz",
        train=random_pixels(60, 6, 5, 3),
        train_labels=labels_N,
        test=random_pixels(7, 6, 5, 3, seed=1),
        test_labels=labels_N[:7],
    )
    return DataConfig(name="array", path=str(root / "set.npz"))


def make_folder(root: Path) -> DataConfig:
    for split, count in (("train", 40), ("test", 5)):
        for index, pixels in enumerate(random_pixels(count, 6, 5, 3, seed=count)):
            save_image(root / split / "images" / f"{index:03}.png", pixels)
    return DataConfig(name="folder", path=str(root))


def make_imagenet64(root: Path, side: int = 64, splits: tuple[str, str] = ("train", "valid")) -> DataConfig:
    for split, count in zip(splits, (12, 3), strict=True):
        for index, pixels in enumerate(random_pixels(count, side, side, 3, seed=count)):
            save_image(root / split / "images" / f"{index:03}.png", pixels)
    return DataConfig(name=f"imagenet{side}", path=str(root), num_valid=4)


def make_imagenet32(root: Path) -> DataConfig:
    return make_imagenet64(root, side=32, splits=("train_32x32", "valid_32x32"))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


def write_parquet(path: Path, images: list[bytes | None], labels: list[int] | None = None) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": [{"bytes": image, "path": None} for image in images]}
    parquet.write_table(pa.table(columns | ({"label": labels} if labels is not None else {})), path)


def make_parquet(root: Path) -> DataConfig:
    for split, count in (("train", 40), ("test", 5)):
        images = [png(pixels) for pixels in random_pixels(count, 6, 5, 3, seed=count)]
        write_parquet(root / f"{split}-00000-of-00001.parquet", images, [index % 3 for index in range(count)])
    return DataConfig(name="parquet", path=str(root))


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_idx(root: Path, kind: str, suffix: str = "") -> None:
    for part, count in (("train", 50), ("t10k", 9)):
        pixels = random_pixels(count, 28, 28, seed=count)
        write_idx(root / kind / "raw" / f"{part}-images-idx3-ubyte{suffix}", pixels)
        write_idx(root / kind / "raw" / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def make_mnist(root: Path) -> DataConfig:
    make_idx(root, "MNIST", suffix=".gz")
    return DataConfig(name="mnist", path=str(root), num_valid=10)


def make_fashion_mnist(root: Path) -> DataConfig:
    make_idx(root, "FashionMNIST")
    return DataConfig(name="fashion_mnist", path=str(root), num_valid=10)


def write_cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for index, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        batch = {"data": random_pixels(8, 3072, seed=index), "labels": [image % 10 for image in range(8)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))


def make_cifar10(root: Path) -> DataConfig:
    """torchvision refuses files without the published sums: `trust_cifar10` lifts that."""
    write_cifar10(root)
    return DataConfig(name="cifar10", path=str(root), num_valid=10)


def make_digits(root: Path) -> DataConfig:
    return DataConfig(name="digits")


MAKERS: dict[str, Callable[[Path], DataConfig]] = {
    "digits": make_digits,
    "mnist": make_mnist,
    "fashion_mnist": make_fashion_mnist,
    "cifar10": make_cifar10,
    "folder": make_folder,
    "imagenet32": make_imagenet32,
    "imagenet64": make_imagenet64,
    "parquet": make_parquet,
    "array": make_array,
}
