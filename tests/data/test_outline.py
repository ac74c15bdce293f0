"""The outline of a data set is the same with and without its images, and nothing is downloaded to find it out."""

from __future__ import annotations

import importlib
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from pixeltune.config import DataConfig, TrialConfig
from pixeltune.data import SOURCES, DataOutline, load_data, outline_of, resolve, resolve_outline
from pixeltune.data.outline import _published_outline
from pixeltune.errors import ConfigError, DataError, MissingDataError, PixeltuneError
from pixeltune.packages import install_command
from pixeltune.published_sets import DIGITS, MNIST, PUBLISHED_SETS
from tests.support.image_sets import (
    MAKERS,
    make_fashion_mnist,
    make_imagenet64,
    make_imagenet_batches,
    make_mnist,
    shared,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: Any, **_options: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket, "create_connection", fail)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "levels": {"levels": 4},
    "static": {"binarise": "static"},
    "dynamic": {"binarise": "dynamic", "levels": 8},
    "threshold": {"binarise": "threshold"},
    "num_valid": {"num_valid": 100},
    "fraction": {"fraction": 0.3},
    "both": {"num_valid": 7, "fraction": 0.01},
    "train_on_valid": {"train_on_valid": True},
}
REFUSED: dict[str, dict[str, Any]] = {
    "resize": {"resize": 4},
    "too many levels": {"levels": 18},
    "all validation": {"num_valid": 1437},
    "grey": {"grey": True},
    "two levels": {"levels": 2, "binarise": "static"},
}


def without_images(config: DataConfig) -> DataOutline:
    published = SOURCES[config.name].published
    assert published is not None
    return _published_outline(published, config)


def facts(found: DataOutline) -> tuple[Any, ...]:
    return found.name, found.version, found.form, dict(found.num_images)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_change_the_outline_as_they_change_the_images(options: dict[str, Any]) -> None:
    config = DataConfig(name="digits", **options)
    found = outline_of(config)
    assert found.data is not None
    assert found.data.identity == load_data(config).identity
    assert facts(found) == facts(without_images(config))


def test_the_new_version_of_imagenet_is_known_from_some_of_its_files(tmp_path: Path) -> None:
    make_imagenet_batches(tmp_path, 32)
    (tmp_path / "Imagenet32_train_npz" / "train_data_batch_7.npz").unlink()
    found = outline_of(DataConfig(name="imagenet32", path=str(tmp_path)))
    assert found.data is None
    assert found.version == "new (Chrabaszcz)"
    assert found.form.num_classes == 1000
    assert dict(found.num_images) == {"train": 1_271_167, "valid": 10_000, "test": 50_000}
    assert str(found.files).startswith(f"is not all in {tmp_path}: train_data_batch_7.npz missing; get ")


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_options_that_do_not_fit_are_refused_in_the_same_words(options: dict[str, Any]) -> None:
    config = DataConfig(name="digits", **options)
    messages = []
    for ask in (load_data, without_images):
        with pytest.raises(ConfigError) as caught:
            ask(config)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_real_mnist_has_the_published_outline() -> None:
    config = DataConfig(name="mnist", path=str(shared("MNIST").parent))
    found = outline_of(config)
    assert found.data is not None
    assert facts(found) == facts(without_images(config))
    assert str(found.files) == f"is in {config.path}; nothing to download"
    raw = shared("MNIST") / "raw"
    unpacked = sum(28 * 28 * count + 16 + count + 8 for count in (60_000, 10_000))
    assert MNIST.unpacked_bytes == unpacked
    assert {archive.name for archive in MNIST.archives} <= {path.name for path in raw.iterdir()}


@pytest.mark.parametrize(
    ("name", "shape", "counts", "classes"),
    [
        ("mnist", (1, 28, 28), (50_000, 10_000, 10_000), 10),
        ("mnist_static", (1, 28, 28), (50_000, 10_000, 10_000), None),
        ("emnist", (1, 28, 28), (102_800, 10_000, 18_800), 47),
        ("omniglot", (1, 28, 28), (23_000, 1_345, 8_070), None),
        ("svhn", (3, 32, 32), (68_257, 5_000, 26_032), 10),
        ("celeba64", (3, 64, 64), (162_770, 19_867, 19_962), None),
        ("fashion_mnist", (1, 28, 28), (50_000, 10_000, 10_000), 10),
        ("cifar10", (3, 32, 32), (45_000, 5_000, 10_000), 10),
        ("imagenet32", (3, 32, 32), (1_271_149, 10_000, 49_999), None),
        ("imagenet64", (3, 64, 64), (1_271_149, 10_000, 49_999), None),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_a_published_set_is_known_without_its_files(
    name: str, shape: tuple[int, ...], counts: tuple[int, ...], classes: int | None, download: bool, tmp_path: Path
) -> None:
    found = outline_of(DataConfig(name=name, download=download))
    assert found.data is None
    assert found.form.shape == shape
    assert found.form.num_classes == classes
    assert tuple(found.num_images.values()) == counts
    assert str(found.files).startswith(f"is not in {tmp_path / 'downloads'}")
    assert found.can_be_downloaded == (not name.startswith(("imagenet", "celeba")))
    assert ("a search will download" in str(found.files)) == (download and found.can_be_downloaded)
    assert not (tmp_path / "downloads").exists()
    if shape[0] == 3:
        assert outline_of(DataConfig(name=name, grey=True)).form.shape == (1, *shape[1:])


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.packages.has_package", lambda name: name != "sklearn")
    found = outline_of(DataConfig(name="digits", path="elsewhere"))
    assert found.data is None
    assert found.num_images == {"train": 1077, "valid": 360, "test": 360}
    assert install_command(["scikit-learn"]) in str(found.files)


@pytest.mark.parametrize("name", ["folder", "array", "parquet"])
def test_files_of_the_users_own_must_be_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError):
        outline_of(DataConfig(name=name, path=str(tmp_path / "absent")))
    with pytest.raises(ConfigError):
        outline_of(DataConfig(name=name))
    found = outline_of(MAKERS[name](tmp_path / "set"))
    assert found.data is not None
    assert found.files is None


def test_some_files_are_not_all(tmp_path: Path) -> None:
    config = make_fashion_mnist(tmp_path)
    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").unlink()
    (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    found = outline_of(config.model_copy(update={"download": True, "num_valid": None}))
    assert found.data is None
    assert str(found.files) == (
        f"is not all in {tmp_path}: FashionMNIST/raw/train-images-idx3-ubyte, FashionMNIST/raw/t10k-labels-idx1-ubyte "
        "missing; a search will download 26.4 MB from http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    )


def test_damaged_files_are_an_error_and_not_missing(tmp_path: Path) -> None:
    config = make_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="must be a whole IDX file"):
        outline_of(config)


def test_imagenet_may_have_its_folders_under_either_name(tmp_path: Path) -> None:
    config = make_imagenet64(tmp_path)
    assert str(outline_of(config).files) == f"is in {tmp_path}; nothing to download"
    (tmp_path / "train").rename(tmp_path / "train_64x64")
    assert str(outline_of(config).files) == f"is in {tmp_path}; nothing to download"
    shutil.rmtree(tmp_path / "valid")
    found = outline_of(config.model_copy(update={"split_seed": 1}))
    assert found.data is None
    assert str(found.files).startswith(f"is not all in {tmp_path}: valid_64x64 missing; get valid_64x64.tar (477.3 MB)")


@pytest.mark.parametrize(
    "changes",
    [{}, {"train.batch_size": 32}, {"train.images": 64}, {"data.fraction": 0.01}, {"likelihood.name": "bernoulli"}],
    ids=str,
)
def test_a_configuration_is_checked_as_with_the_images(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 2, "channels": 8, "kernel_size": 3},
            "likelihood": {"name": "categorical"},
            "train": {"images": 3200, "batch_size": 16},
        }
    ).override(changes)

    def answer(check: Any) -> object:
        try:
            return check(base).config
        except PixeltuneError as error:
            return str(error)

    expected = answer(resolve)
    assert answer(resolve_outline) == expected
    module = importlib.import_module("pixeltune.data.resolve")  # pixeltune.data has a function of that name
    monkeypatch.setattr(module, "outline_of", lambda config: _published_outline(DIGITS, config))
    assert answer(resolve_outline) == expected


def test_the_sizes_are_those_that_download_pages_state() -> None:
    """In MiB and GiB: CIFAR-10 as on its page (163), the others as TensorFlow Datasets lists them."""
    sizes = {name: sum(archive.num_bytes for archive in each.archives) for name, each in PUBLISHED_SETS.items()}
    assert {name: round(size / 2**20, 2) for name, size in sizes.items() if size < 2**30} == {
        "digits": 0.0,
        "mnist": 11.06,
        "mnist_static": 104.68,
        "fashion_mnist": 29.45,
        "emnist": 535.73,
        "omniglot": 0.0,
        "cifar10": 162.6,
        "svhn": 234.91,
    }
    assert {name: round(size / 2**30, 2) for name, size in sizes.items() if size > 2**30} == {
        "imagenet32": 3.98,
        "imagenet64": 11.73,
        "celeba64": 1.35,
    }
