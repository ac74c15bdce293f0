"""Bad input: one line that says what must hold, what was got, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltune.config import DataConfig
from pixeltune.data import load_data
from pixeltune.errors import ConfigError
from tests.support.image_sets import (
    make_array,
    make_digits,
    make_fashion_mnist,
    make_folder,
    make_imagenet64,
    make_mnist,
    make_parquet,
    png,
    random_pixels,
    refusal,
    save_image,
    write_cifar10,
    write_parquet,
)


def changed(config: DataConfig, **changes: object) -> DataConfig:
    return DataConfig.model_validate(config.model_dump() | changes)


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    message = refusal(DataConfig(name="digit"), ConfigError)
    assert "did you mean digits" in message
    assert "imagenet64" in message


@pytest.mark.parametrize(
    "name", ["no_such_package:read", "json:no_such_function", ":", "json:__doc__", "json.:x", "..:x"]
)
def test_a_bad_import_path(name: str) -> None:
    assert name in refusal(DataConfig(name=name))


def test_an_own_source_that_returns_something_else() -> None:
    assert "RawData" in refusal(DataConfig(name="copy:copy"))


FAULTY = """
from pixeltune.errors import ConfigError

def read(config):
    return {}["images"]

def write(config):
    raise OSError(28, "No space\\nleft")

def refuse(config):
    raise ConfigError("`data.path` must be mine")

def listed(config):
    return None

listed.files = lambda config: 1 / 0

def uncounted(config):
    return None

uncounted.files = lambda config: None

def cached(config):
    return {}["images"]

cached.files = lambda config: []
"""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("read", "KeyError: 'images'"),
        ("write", "OSError: [Errno 28] No space left"),
        ("listed", "ZeroDivisionError"),
        ("uncounted", "TypeError"),
        ("cached", "KeyError: 'images'"),
    ],
)
def test_an_own_source_that_raises(function: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_images.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(DataConfig(name=f"faulty_images:{function}"))
    assert f"faulty_images:{function}" in message
    assert says in message
    assert "must be mine" in refusal(DataConfig(name="faulty_images:refuse"), ConfigError)


def test_an_own_source_whose_module_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising_images.py").write_text("{}['no such']")
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(DataConfig(name="raising_images:read"))
    assert "raising_images:read" in message
    assert "KeyError: 'no such'" in message


@pytest.mark.parametrize("name", ["mnist", "mnist_static", "fashion_mnist", "emnist", "omniglot", "cifar10", "svhn"])
def test_a_missing_download_says_how_to_allow_it(name: str, tmp_path: Path) -> None:
    assert "data.download" in refusal(DataConfig(name=name, path=str(tmp_path)))
    assert "data.download" in refusal(DataConfig(name=name))


@pytest.mark.parametrize("name", ["folder", "parquet", "array"])
def test_a_path_is_needed_and_must_exist(name: str, tmp_path: Path) -> None:
    assert "data.path" in refusal(DataConfig(name=name), ConfigError)
    assert "absent" in refusal(DataConfig(name=name, path=str(tmp_path / "absent")))


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("download", [False, True])
def test_imagenet_names_the_archives_to_unpack_and_where(side: int, download: bool, tmp_path: Path) -> None:
    message = refusal(DataConfig(name=f"imagenet{side}", download=download))
    assert message.startswith(f"imagenet{side} must be in {tmp_path / 'downloads' / f'imagenet{side}'}, but ")
    assert f"get train_{side}x{side}.tar and valid_{side}x{side}.tar (" in message
    assert "data.download" not in message


def test_images_of_another_size_are_not_taken_for_imagenet(tmp_path: Path) -> None:
    make_imagenet64(tmp_path)
    assert "must be 3 colours of 32×32, but got (3, 64, 64)" in refusal(
        DataConfig(name="imagenet32", path=str(tmp_path))
    )


@pytest.mark.parametrize(
    ("pixels", "option"), [(random_pixels(7, 5, 3), "data.resize"), (random_pixels(6, 5), "data.grey")]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_mixed_sizes_and_modes_name_two_files(pixels: np.ndarray, option: str, split: str, tmp_path: Path) -> None:
    config = make_folder(tmp_path)
    save_image(tmp_path / split / "images" / "odd.png", pixels)
    message = refusal(config)
    assert "odd.png" in message
    assert "000.png" in message
    assert option in message
    grey = "grey" in option
    assert load_data(changed(config, grey=grey, resize=None if grey else 4)).form.channels == (1 if grey else 3)


def test_a_mode_that_is_not_8_bit_levels(tmp_path: Path) -> None:
    save_image(tmp_path / "train" / "deep.png", np.zeros((4, 4), np.uint16))
    assert "deep.png" in refusal(DataConfig(name="folder", path=str(tmp_path)))
    (tmp_path / "train" / "deep.png").unlink()
    Image.fromarray(np.zeros((4, 4, 4), np.uint8), "RGBA").save(tmp_path / "train" / "clear.png")
    assert "RGBA" in refusal(DataConfig(name="folder", path=str(tmp_path), grey=True))


def test_empty_folders(tmp_path: Path) -> None:
    config = DataConfig(name="folder", path=str(tmp_path))
    assert "train" in refusal(config)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("no image")
    assert "image files" in refusal(config)
    assert "train*.parquet" in refusal(changed(config, name="parquet"))


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    config = make_folder(tmp_path)
    for name in ("val", "valid"):
        save_image(tmp_path / name / "0.png", random_pixels(6, 5, 3))
    assert "val" in refusal(config)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_corrupt_image_is_named(keep: float, suffix: str, tmp_path: Path) -> None:
    config = make_folder(tmp_path)
    broken = tmp_path / "train" / "images" / f"broken.{suffix}"
    save_image(broken, random_pixels(60, 50, 3))
    cut(broken, keep)
    assert broken.name in refusal(config)


def test_images_that_are_not_imagenet64(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / "valid")
    assert "64×64" in refusal(DataConfig(name="imagenet64", path=str(tmp_path)))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_cut_array(keep: float, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".npy":
        np.save(path, random_pixels(20, 8, 8))
    else:
        np.savez(path, train=random_pixels(20, 8, 8))
    cut(path, keep)
    assert path.name in refusal(DataConfig(name="array", path=str(path)))


@pytest.mark.parametrize(
    "content",
    [
        {"train": np.zeros((4, 4, 4), np.float32)},
        {"train": np.zeros((4, 16), np.uint8)},
        {"train": np.zeros((4, 3, 5, 3), np.uint8)},
        {"train": np.zeros((4, 9, 9, 9), np.uint8)},
        {"train": np.zeros((0, 9, 9), np.uint8)},
        {"images": np.zeros((4, 4, 4), np.uint8)},
        {"test": np.zeros((4, 4, 4), np.uint8)},
        {"train": np.zeros((4, 4, 4), np.uint8), "test": np.zeros((4, 4, 5), np.uint8)},
        {"train": np.zeros((4, 4, 4), np.uint8), "train_labels": np.zeros(3, np.int64)},
        {"train": np.zeros((4, 4, 4), np.uint8), "train_labels": np.zeros(4)},
        {"train": np.full((4, 4, 4), 5, np.uint8), "levels": np.array(5)},
        {"train": np.full((4, 4, 4), 5, np.uint8), "levels": np.array(1000)},
        {"train": np.full((4, 4, 4), 5, np.uint8), "levels": np.array([2, 3])},
        {"train": np.array([None, "a"], dtype=object)},
    ],
)
def test_arrays_of_the_wrong_form(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **content)
    refusal(DataConfig(name="array", path=str(tmp_path / "set.npz")))


def test_an_archive_by_the_name_of_an_array(tmp_path: Path) -> None:
    config = make_array(tmp_path)
    (tmp_path / "set.npz").rename(tmp_path / "set.npy")
    refusal(changed(config, path=str(tmp_path / "set.npy")))
    refusal(changed(config, path=str(tmp_path)))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_cut_parquet_file_is_named(keep: float, tmp_path: Path) -> None:
    config = make_parquet(tmp_path)
    cut(tmp_path / "test-00000-of-00001.parquet", keep)
    assert "test-00000-of-00001.parquet" in refusal(config)


def test_parquet_with_other_columns_or_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    config = DataConfig(name="parquet", path=str(tmp_path))
    parquet.write_table(pa.table({"pixels": [1, 2]}), tmp_path / "train.parquet")
    assert "pixels" in refusal(config)
    write_parquet(tmp_path / "train.parquet", [png(random_pixels(4, 4)), None])
    assert "row 1" in refusal(config)
    write_parquet(tmp_path / "train.parquet", [png(random_pixels(4, 4)), b"no image"])
    assert "row 1" in refusal(config)
    parquet.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "train.parquet")
    refusal(config)


@pytest.mark.parametrize("make", [make_mnist, make_fashion_mnist])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_cut_idx_file_is_named(make: Callable[[Path], DataConfig], keep: float, tmp_path: Path) -> None:
    config = make(tmp_path)
    (path,) = tmp_path.glob("*/raw/t10k-images*")
    cut(path, keep)
    assert path.name in refusal(config)


def test_cifar10_that_is_not_the_published_one(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    assert "published" in refusal(DataConfig(name="cifar10", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("make", "changes", "word"),
    [
        (make_digits, {"levels": 18}, "data.levels"),
        (make_digits, {"grey": True}, "data.grey"),
        (make_digits, {"resize": 4}, "data.resize"),
        (make_imagenet64, {"resize": 32}, "data.resize"),
        (make_array, {"resize": 4}, "data.resize"),
        (make_digits, {"levels": 2, "binarise": "static"}, "data.binarise"),
        (make_digits, {"num_valid": 1437}, "data.num_valid"),
        (make_array, {"num_valid": 60}, "data.num_valid"),
    ],
)
def test_options_that_do_not_fit(
    make: Callable[[Path], DataConfig], changes: dict[str, object], word: str, tmp_path: Path
) -> None:
    assert word in refusal(changed(make(tmp_path), **changes), ConfigError)
