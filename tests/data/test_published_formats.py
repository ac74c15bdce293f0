"""Each published set in its published format, on small files made here with digests and counts of their own."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.data.readers import imagenet
from pixeltune.errors import ConfigError, MissingDataError
from pixeltune.published_sets import PUBLISHED_SETS, Archive, PublishedSet, file_digest
from tests.support.image_sets import (
    make_celeba64,
    make_emnist,
    make_imagenet64,
    make_imagenet_batches,
    make_mnist_static,
    make_omniglot,
    make_svhn,
    random_pixels,
    refusal,
    source_of_files,
)


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PublishedSet]:
    """Make the files in a folder the published ones: their digests, and any other facts."""

    def inject(name: str, root: Path, **facts: Any) -> PublishedSet:
        published = PUBLISHED_SETS[name]
        archives = tuple(with_digest(archive, root / archive.path) for archive in published.archives)
        published = replace(published, archives=archives, **facts)
        monkeypatch.setitem(SOURCES, name, source_of_files(published))
        return published

    return inject


def with_digest(archive: Archive, path: Path) -> Archive:
    return replace(archive, sha256=file_digest(path, "sha256")) if path.is_file() else archive


def flip_bit(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(bytes(content))


# mnist_static


def test_the_published_draw_of_mnist_is_read_as_published(tmp_path: Path, publish: Any) -> None:
    config = make_mnist_static(tmp_path)
    publish("mnist_static", tmp_path)
    data = load_data(config)
    assert data.identity.version == "original"
    assert data.form.levels == 2
    assert data.form.num_classes is None
    for split, count in ((data.train, 40), (data.valid, 12), (data.test, 6)):
        assert split is not None
        assert np.array_equal(split.pixels_NCHW.reshape(-1, 784), random_pixels(count, 784, seed=count, levels=2))


def test_a_final_trains_on_the_published_train_and_valid(tmp_path: Path) -> None:
    config = make_mnist_static(tmp_path)
    both = load_data(config.model_copy(update={"train_on_valid": True}))
    apart = load_data(config)
    assert apart.valid is not None
    assert len(both.train) == 52
    assert np.array_equal(both.train.pixels_NCHW, np.concatenate([apart.train.pixels_NCHW, apart.valid.pixels_NCHW]))


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_one_pixel_that_differs_makes_the_draw_another(part: str, tmp_path: Path, publish: Any) -> None:
    config = make_mnist_static(tmp_path)
    publish("mnist_static", tmp_path)
    flip_bit(tmp_path / f"binarized_mnist_{part}.amat", 400)
    assert load_data(config).identity.version == "altered"


def test_the_published_validation_images_are_not_carved_again(tmp_path: Path) -> None:
    config = make_mnist_static(tmp_path).model_copy(update={"num_valid": 5})
    assert "`data.num_valid` must be unset for mnist_static" in refusal(config, ConfigError)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"0 1 0\n", b"0 " * 783 + b"\n", b"0 " * 1568 + b"\n", b"0 " * 783 + b"2 \n", b"01" * 392 + b"\n",
     b"0," * 784 + b"\n", b"0.0 " * 784 + b"\n", b"0 " * 784 + b"\n" + b"1 " * 500],
    ids=["empty", "no pixel", "short", "one less", "two lines in one", "a two", "no blank", "commas", "floats", "cut"],
)  # fmt: skip
def test_a_draw_that_is_no_draw_is_refused(content: bytes, tmp_path: Path) -> None:
    config = make_mnist_static(tmp_path)
    (tmp_path / "binarized_mnist_valid.amat").write_bytes(content)
    assert "binarized_mnist_valid.amat must have 784 pixels 0 or 1 a line" in refusal(config)


def test_line_ends_of_windows_and_a_last_line_without_one_are_the_same_pixels(tmp_path: Path) -> None:
    config = make_mnist_static(tmp_path)
    checksum = load_data(config).identity.checksum
    for change in (lambda content: content.replace(b" \n", b"\r\n"), lambda content: content.rstrip()):
        for path in tmp_path.glob("*.amat"):
            path.write_bytes(change(path.read_bytes()))
        forget_loaded()
        assert load_data(config).identity.checksum == checksum


# ImageNet, old version


def make_tars(root: Path, folders: Path) -> None:
    root.mkdir()
    for split in ("train", "valid"):
        with tarfile.open(root / f"{split}_64x64.tar", "w") as archive:
            for path in sorted((folders / split).rglob("*.png"), reverse=True):  # tar has its own order
                archive.add(path, f"{split}_64x64/{path.name}")


def test_the_archives_of_the_old_version_are_read_as_they_are(tmp_path: Path, publish: Any) -> None:
    unpacked = load_data(make_imagenet64(tmp_path / "folders"))
    make_tars(tmp_path / "tars", tmp_path / "folders")
    publish("imagenet64", tmp_path / "tars")
    config = DataConfig(name="imagenet64", path=str(tmp_path / "tars"), num_valid=4)
    data = load_data(config)
    assert data.identity.version == "old (van den Oord)"
    assert data.identity.checksum == unpacked.identity.checksum
    assert data.form.num_classes is None
    path = tmp_path / "tars" / "valid_64x64.tar"
    flip_bit(path, path.stat().st_size - 100)  # in the padding after the last image
    forget_loaded()
    other = load_data(config)
    assert other.identity.version == "other"
    assert other.identity.checksum == data.identity.checksum


def test_unpacked_images_are_the_old_version_by_their_number(tmp_path: Path, publish: Any) -> None:
    config = make_imagenet64(tmp_path)
    publish("imagenet64", tmp_path, num_train=12, num_test=3)
    assert load_data(config).identity.version == "old (van den Oord)"
    forget_loaded()
    (tmp_path / "valid" / "images" / "000.png").unlink()
    assert load_data(config).identity.version == "other"


def test_an_archive_next_to_unpacked_images_is_of_no_certain_version(tmp_path: Path, publish: Any) -> None:
    make_imagenet64(tmp_path / "folders")
    make_tars(tmp_path / "tars", tmp_path / "folders")
    publish("imagenet64", tmp_path / "tars")
    (tmp_path / "tars" / "valid_64x64.tar").unlink()
    (tmp_path / "folders" / "valid").rename(tmp_path / "tars" / "valid")
    data = load_data(DataConfig(name="imagenet64", path=str(tmp_path / "tars"), num_valid=4))
    assert data.identity.version == "other"


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_an_archive_that_is_cut_is_named(keep: float, tmp_path: Path) -> None:
    make_imagenet64(tmp_path / "folders")
    make_tars(tmp_path / "tars", tmp_path / "folders")
    path = tmp_path / "tars" / "train_64x64.tar"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert str(path) in refusal(DataConfig(name="imagenet64", path=str(tmp_path / "tars")))


@pytest.mark.parametrize("missing", ["train", "valid"])
def test_half_of_the_old_version_is_refused(missing: str, tmp_path: Path) -> None:
    config = make_imagenet64(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    assert f"but {missing}_64x64 is not there; get {missing}_64x64.tar (" in refusal(config, MissingDataError)


# ImageNet, new version


@pytest.mark.parametrize("side", [32, 64])
def test_batches_of_the_new_version(side: int, tmp_path: Path, publish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_imagenet_batches(tmp_path, side)
    (new,) = PUBLISHED_SETS[f"imagenet{side}"].other_editions
    publish(f"imagenet{side}", tmp_path, other_editions=(replace(new, num_train=40, num_test=3),))
    sums = {path.name: file_digest(path, "md5") for path in tmp_path.rglob("*.npz")}
    monkeypatch.setattr(imagenet, "_NPZ_MD5", {32: sums})
    data = load_data(config)
    assert data.identity.version == "new (Chrabaszcz)"
    assert (len(data.train), len(data.valid or ()), len(data.test or ())) == (36, 4, 3)
    assert data.test is not None
    assert data.test.labels_N is not None
    # Colour planes one after the other, and labels from 0 on.
    assert np.array_equal(
        data.test.pixels_NCHW[1, 2].ravel(), random_pixels(3, 3 * side * side, seed=10)[1][-side * side :]
    )
    assert data.test.labels_N.tolist() == [0, 1, 2]
    assert data.form.num_classes == 4
    grey = load_data(config.model_copy(update={"grey": True}))
    assert grey.form.channels == 1


def test_batches_of_another_content_are_another_version(
    tmp_path: Path, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_imagenet_batches(tmp_path, 32)
    (new,) = PUBLISHED_SETS["imagenet32"].other_editions
    publish("imagenet32", tmp_path, other_editions=(replace(new, num_train=40, num_test=3),))
    sums = {path.name: file_digest(path, "md5") for path in tmp_path.rglob("*.npz")}
    monkeypatch.setattr(imagenet, "_NPZ_MD5", {32: sums | {"train_data_batch_3.npz": "0" * 32}})
    assert load_data(config).identity.version == "other"


def test_batches_may_be_in_the_folder_itself(tmp_path: Path) -> None:
    config = make_imagenet_batches(tmp_path, 64)
    checksum = load_data(config).identity.checksum
    for path in list(tmp_path.rglob("*.npz")):
        path.rename(tmp_path / path.name)
    forget_loaded()
    data = load_data(config)
    assert data.identity.checksum == checksum
    assert data.identity.version == "other"  # of another number of images


@pytest.mark.parametrize("names", [("val_data",), ("train_data_batch_3", "train_data_batch_10")])
def test_batches_that_are_missing_are_named(names: tuple[str, ...], tmp_path: Path) -> None:
    config = make_imagenet_batches(tmp_path, 32)
    for name in names:
        next(tmp_path.rglob(f"{name}.npz")).unlink()
    message = refusal(config, MissingDataError)
    assert ", ".join(f"{name}.npz" for name in names) in message
    assert "Imagenet32_" in message


def test_both_versions_in_one_folder_are_refused(tmp_path: Path) -> None:
    make_imagenet64(tmp_path)
    config = make_imagenet_batches(tmp_path, 64)
    message = refusal(config)
    assert "has files of old (van den Oord) and of new (Chrabaszcz)" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"data": np.zeros((2, 3 * 32 * 32), np.uint8), "labels": np.array([0, 1])}, "labels are not integers from 1"),
        ({"data": np.zeros((2, 3 * 64 * 64), np.uint8), "labels": np.array([1, 2])}, "not (images, 3072)"),
        ({"data": np.zeros((2, 3 * 32 * 32), np.float32), "labels": np.array([1, 2])}, "float32"),
        ({"data": np.zeros((2, 3 * 32 * 32), np.uint8), "labels": np.array([1])}, "labels (1,)"),
        ({"data": np.zeros((2, 3 * 32 * 32), np.uint8)}, "labels"),
        ({"labels": np.array([1])}, "data"),
    ],
    ids=["labels from 0", "another side", "floats", "too few labels", "no labels", "no data"],
)
def test_a_batch_of_another_form_is_named(content: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    config = make_imagenet_batches(tmp_path, 32)
    path = tmp_path / "Imagenet32_train_npz" / "train_data_batch_4.npz"
    np.savez(path, **content)
    message = refusal(config)
    assert str(path) in message
    assert says in message


# SVHN, Omniglot, EMNIST, CelebA


def test_svhn_has_digits_as_labels_and_upright_images(tmp_path: Path, publish: Any) -> None:
    config = make_svhn(tmp_path)
    publish("svhn", tmp_path)
    data = load_data(config)
    assert data.identity.version == "original"
    assert data.test is not None
    assert data.test.labels_N is not None
    assert data.test.labels_N.tolist() == [*range(1, 10), 0, 1, 2]
    pixels_HWCN = random_pixels(32, 32, 3, 12, seed=12)
    assert np.array_equal(data.test.pixels_NCHW[4, 2], pixels_HWCN[:, :, 2, 4])
    flip_bit(tmp_path / "train_32x32.mat", 20)  # in the text at the head of the file
    forget_loaded()
    assert load_data(config).identity.version == "altered"


def test_omniglot_is_upright_and_rounded_to_the_nearest_level(tmp_path: Path, publish: Any) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    config = make_omniglot(tmp_path)
    publish("omniglot", tmp_path)
    data = load_data(config)
    assert data.identity.version == "original"
    assert data.test is not None
    values_DN = scipy_io.loadmat(tmp_path / "chardata.mat")["testdata"]
    # MATLAB stores columns: pixel (row, column) is value row + 28 · column.
    row, column, image = 3, 20, 7
    assert abs(data.test.pixels_NCHW[image, 0, row, column] / 255 - values_DN[row + 28 * column, image]) <= 0.5 / 255
    binary = load_data(config.model_copy(update={"binarise": "static"}))
    assert binary.form.levels == 2


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("svhn", "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]], np.uint8)}),
        ("svhn", "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2)), "y": np.array([[1], [2]], np.uint8)}),
        ("svhn", "test_32x32.mat", {"X": np.zeros((3, 32, 32, 2), np.uint8), "y": np.array([[1], [2]], np.uint8)}),
        ("svhn", "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8)}),
        ("omniglot", "chardata.mat", {"data": np.zeros((784, 3)), "testdata": np.full((784, 3), 1.5)}),
        ("omniglot", "chardata.mat", {"data": np.zeros((3, 784)), "testdata": np.zeros((784, 3))}),
        ("omniglot", "chardata.mat", {"data": np.full((784, 3), np.nan), "testdata": np.zeros((784, 3))}),
    ],
    ids=["labels from 0", "floats", "colours first", "no labels", "above 1", "rows and columns", "not a number"],
)
def test_matlab_files_of_another_form_are_named(
    name: str, file: str, content: dict[str, np.ndarray], tmp_path: Path
) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    config = {"svhn": make_svhn, "omniglot": make_omniglot}[name](tmp_path)
    scipy_io.savemat(tmp_path / file, content)
    assert f"{tmp_path / file} must be the published MATLAB file" in refusal(config)


@pytest.mark.parametrize("content", [b"", b"no MATLAB", bytes(300), b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_what_is_no_matlab_file_is_named(content: bytes, tmp_path: Path) -> None:
    config = make_svhn(tmp_path)
    (tmp_path / "train_32x32.mat").write_bytes(content)
    assert "train_32x32.mat must be the published MATLAB file" in refusal(config)


def test_emnist_is_one_set_in_the_layouts_of_its_archive_and_of_torchvision(tmp_path: Path) -> None:
    layouts = [("EMNIST/raw/gzip", ".gz"), ("EMNIST/raw", ".gz"), ("EMNIST/raw", "")]
    checksums = set()
    for number, (folder, suffix) in enumerate(layouts):
        data = load_data(make_emnist(tmp_path / str(number), folder, suffix))
        assert data.form.num_classes == 47
        checksums.add(data.identity.checksum)
    assert len(checksums) == 1


def test_celeba_is_cropped_and_split_as_published(tmp_path: Path, publish: Any) -> None:
    config = make_celeba64(tmp_path)
    publish("celeba64", tmp_path, num_train=14, num_valid=3, num_test=3)
    data = load_data(config)
    assert data.identity.version == "cropped (Larsen et al. 2016)"
    assert (len(data.train), len(data.valid or ()), len(data.test or ())) == (14, 3, 3)
    assert data.valid is not None
    whole = Image.open(tmp_path / "img_align_celeba" / "000015.jpg")
    crop = np.asarray(whole)[40:188, 15:163]
    wanted = np.asarray(Image.fromarray(crop).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(data.valid.pixels_NCHW[0], np.moveaxis(wanted, 2, 0))
    (tmp_path / "img_align_celeba" / "000099.jpg").write_bytes(b"more")
    forget_loaded()
    assert load_data(config).notes == ("1 file not read: img_align_celeba/000099.jpg (not in list_eval_partition.txt)",)


def test_celeba_of_another_form_is_refused(tmp_path: Path) -> None:
    config = make_celeba64(tmp_path)
    (tmp_path / "img_align_celeba" / "000003.jpg").unlink()
    assert "000003.jpg missing" in refusal(config)
    Image.fromarray(random_pixels(64, 64, 3)).save(tmp_path / "img_align_celeba" / "000003.jpg")
    assert "is 64×64; take img_align_celeba.zip" in refusal(config)
    (tmp_path / "list_eval_partition.txt").write_text("000003.jpg 0\n../../x.jpg 0\n")
    assert "line 2" in refusal(config)


# What is published of a file


def test_a_file_is_recognised_by_each_kind_of_digest(tmp_path: Path) -> None:
    content = b"what is published"
    path = tmp_path / "file"
    path.write_bytes(content)
    digests = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "git_blob": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    for name, digest in digests.items():
        archive = Archive(name="file", num_bytes=0, **{name: digest})
        path.write_bytes(content)
        assert archive.has_digest
        assert archive.fault(path) == ""
        path.write_bytes(content + b".")
        assert digest in archive.fault(path)
    assert not Archive(name="file", num_bytes=0).has_digest
    path.write_bytes(b"")
    empty = Archive(name="file", num_bytes=0, git_blob="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    assert empty.fault(path) == ""  # as `git hash-object` has it


def test_plain_files_differ_from_archives() -> None:
    plain = {name: [each.is_plain for each in published.archives] for name, published in PUBLISHED_SETS.items()}
    assert plain["mnist_static"] == [True] * 3
    assert plain["svhn"] == [True] * 2
    assert plain["mnist"] == [False] * 4
    packed = {name: [each.is_read_packed for each in published.archives] for name, published in PUBLISHED_SETS.items()}
    assert packed["mnist"] == [True] * 4
    assert packed["cifar10"] == [False]
    assert packed["imagenet64"] == [True] * 2


def test_every_set_says_what_it_is_and_where_it_comes_from() -> None:
    for published in PUBLISHED_SETS.values():
        for edition in published.editions:
            assert edition.title
            assert edition.page or edition.library
            assert edition.archives or edition.library
