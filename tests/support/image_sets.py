"""Small sets of every kind on disk: one maker a source, so that tests run over the dict of sources."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.data.sources import Source
from pixeltune.errors import DataError, PixeltuneError
from pixeltune.published_sets import PublishedSet

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def shared(name: str) -> Path:
    """The real set of that name, or a skip."""
    if not (SHARED / name).exists():
        pytest.skip(f"needs the real images in ../shared/data/{name}, which are not here")
    return SHARED / name


def source_of_files(published: PublishedSet) -> Source:
    """Return the source of this name with other facts of what is published, such as digests of small files."""
    source = SOURCES[published.name]

    def again(function: object) -> partial[Any]:
        assert isinstance(function, partial)
        return partial(function.func, published)

    ignored = None if source.ignored is None else again(source.ignored)
    return replace(source, read=again(source.read), files=again(source.files), ignored=ignored, published=published)


def refusal(config: DataConfig, kind: type[PixeltuneError] = DataError) -> str:
    """Return the message with which these images are refused, which must be one line."""
    forget_loaded()
    with pytest.raises(kind) as caught:
        load_data(config)
    message = str(caught.value)
    assert "\n" not in message
    assert "must" in message or "need" in message or "may" in message
    return message


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


def make_imagenet_batches(root: Path, side: int, count: int = 4, valid: int = 3) -> DataConfig:
    """The new version: ten batches and one of validation, in the folders of the published archives."""
    parts = (
        [f"Imagenet{side}_train_npz"] * 10
        if side == 32
        else [f"Imagenet64_train_part{1 + n // 5}_npz" for n in range(10)]
    )
    names = [f"{part}/train_data_batch_{number}.npz" for number, part in enumerate(parts, start=1)]
    for seed, name in enumerate([*names, f"Imagenet{side}_val_npz/val_data.npz"]):
        images = count if "train" in name else valid
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = random_pixels(images, 3 * side * side, seed=seed)
        # Batch by batch the same classes 1..count, as int64, and the mean image that readers do not need.
        np.savez(root / name, data=pixels, labels=1 + np.arange(images) % count, mean=pixels.mean(axis=0))
    return DataConfig(name=f"imagenet{side}", path=str(root), num_valid=4)


def make_mnist_static(root: Path) -> DataConfig:
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 40), ("valid", 12), ("test", 6)):
        write_amat(root / f"binarized_mnist_{part}.amat", random_pixels(count, 784, seed=count, levels=2))
    return DataConfig(name="mnist_static", path=str(root))


def write_amat(path: Path, pixels_ND: np.ndarray) -> None:
    path.write_text("".join(" ".join(map(str, row)) + " \n" for row in pixels_ND))


def make_svhn(root: Path) -> DataConfig:
    scipy_io = pytest.importorskip("scipy.io")
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 40), ("test", 12)):
        labels_N1 = (1 + np.arange(count, dtype=np.uint8) % 10)[:, None]
        pixels_HWCN = random_pixels(32, 32, 3, count, seed=count)
        scipy_io.savemat(root / f"{part}_32x32.mat", {"X": pixels_HWCN, "y": labels_N1}, do_compression=True)
    return DataConfig(name="svhn", path=str(root), num_valid=10)


def make_omniglot(root: Path) -> DataConfig:
    scipy_io = pytest.importorskip("scipy.io")
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    content = {"data": generator.random((784, 40)), "testdata": generator.random((784, 9)), "target": np.eye(50)}
    scipy_io.savemat(root / "chardata.mat", content)
    return DataConfig(name="omniglot", path=str(root), num_valid=10)


def make_emnist(root: Path, folder: str = "EMNIST/raw/gzip", suffix: str = ".gz") -> DataConfig:
    for part, count in (("train", 60), ("test", 9)):
        stem = root / folder / f"emnist-balanced-{part}"
        write_idx(Path(f"{stem}-images-idx3-ubyte{suffix}"), random_pixels(count, 28, 28, seed=count))
        write_idx(Path(f"{stem}-labels-idx1-ubyte{suffix}"), np.arange(count) % 47)
    return DataConfig(name="emnist", path=str(root), num_valid=10)


def make_celeba64(root: Path) -> DataConfig:
    """Images as PNG under the published names, so that their pixels are exact."""
    lines = []
    for index, part in enumerate([0] * 14 + [1] * 3 + [2] * 3):
        name = f"{index + 1:06}.jpg"
        (root / "img_align_celeba").mkdir(parents=True, exist_ok=True)
        (root / "img_align_celeba" / name).write_bytes(png(random_pixels(218, 178, 3, seed=index)))
        lines.append(f"{name} {part}\n")
    (root / "list_eval_partition.txt").write_text("".join(lines))
    return DataConfig(name="celeba64", path=str(root))


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
    "mnist_static": make_mnist_static,
    "fashion_mnist": make_fashion_mnist,
    "emnist": make_emnist,
    "omniglot": make_omniglot,
    "cifar10": make_cifar10,
    "svhn": make_svhn,
    "celeba64": make_celeba64,
    "folder": make_folder,
    "imagenet32": make_imagenet32,
    "imagenet64": make_imagenet64,
    "parquet": make_parquet,
    "array": make_array,
}
