"""Every file of a data folder is read, or named with the reason, or refused; no image is changed without a word."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltune.config import DataConfig, TrialConfig
from pixeltune.data import load_data, resolve
from pixeltune.data.load import forget_loaded
from pixeltune.errors import ConfigError
from tests.support.image_sets import (
    make_folder,
    make_imagenet64,
    make_parquet,
    png,
    random_pixels,
    refusal,
    save_image,
    write_parquet,
)

VALIDATION_NAMES = ("valid", "val", "validation", "dev", "eval")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty data folder, apart from the cache."""
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def notes(config: DataConfig) -> str:
    forget_loaded()
    return "; ".join(load_data(config).notes)


def counts(config: DataConfig) -> tuple[int, ...]:
    data = load_data(config)
    return tuple(len(split) for split in (data.train, data.valid, data.test) if split is not None)


def shard(root: Path, name: str, count: int, seed: int = 0) -> None:
    write_parquet(root / name, [png(pixels) for pixels in random_pixels(count, 6, 5, 3, seed=seed)])


# Names of splits


@pytest.mark.parametrize("name", VALIDATION_NAMES)
@pytest.mark.parametrize("source", ["folder", "array", "parquet file", "parquet shards", "parquet folder"])
def test_validation_has_the_same_names_in_every_source(source: str, name: str, root: Path) -> None:
    if source == "array":
        arrays = {
            "train": random_pixels(20, 6, 5, 3),
            name: random_pixels(7, 6, 5, 3, seed=7),
            "test": random_pixels(3, 6, 5, 3, seed=3),
        }
        np.savez(root / "set.npz", **arrays)
        config = DataConfig(name="array", path=str(root / "set.npz"))
    elif source == "folder":
        for split, count in (("train", 20), (name, 7), ("test", 3)):
            for index, pixels in enumerate(random_pixels(count, 6, 5, 3, seed=count)):
                save_image(root / split / f"{index}.png", pixels)
        config = DataConfig(name="folder", path=str(root))
    else:
        form = {"file": "{}.parquet", "shards": "{}-00000-of-00001.parquet", "folder": "{}/0000.parquet"}[source[8:]]
        for split, count in (("train", 20), (name, 7), ("test", 3)):
            shard(root, form.format(split), count, seed=count)
        config = DataConfig(name="parquet", path=str(root))
    assert counts(config) == (20, 7, 3)
    assert load_data(config).notes == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("my_val.parquet", "valid"),
        ("set.v2-test.parquet", "test"),
        ("eval_1.parquet", "valid"),
        ("Test.parquet", "test"),
        ("trainval.parquet", None),
        ("latest.parquet", None),
        ("evaluation.parquet", None),
    ],
)
def test_a_parquet_file_is_of_the_split_that_is_a_word_of_its_name(name: str, split: str | None, root: Path) -> None:
    shard(root, "train.parquet", 20)
    shard(root, name, 7, seed=1)
    config = DataConfig(name="parquet", path=str(root), num_valid=None if split == "valid" else 2)
    data = load_data(config)
    assert len(data.test or ()) == (7 if split == "test" else 0)
    assert len(data.valid or ()) == (7 if split == "valid" else 2)
    assert (f"1 file not read: {name} (in the name of no split)" in data.notes) == (split is None)


@pytest.mark.parametrize("name", ["train_test.parquet", "val-of-train.parquet"])
def test_a_file_of_two_splits_is_refused(name: str, root: Path) -> None:
    shard(root, "train.parquet", 20)
    shard(root, name, 7)
    assert f"{root / name} has the names of " in refusal(DataConfig(name="parquet", path=str(root)))


@pytest.mark.parametrize("names", [("val", "valid"), ("dev", "eval"), ("validation", "val")])
def test_two_names_of_one_split_are_refused(names: tuple[str, str], root: Path) -> None:
    config = make_folder(root / "folder")
    for name in names:
        save_image(root / "folder" / name / "0.png", random_pixels(6, 5, 3))
        shard(root / "tables", f"{name}/0.parquet", 4)
    np.savez(root / "set.npz", train=random_pixels(20, 6, 5), **{name: random_pixels(4, 6, 5) for name in names})
    shard(root / "tables", "train/0.parquet", 20)
    for each in (
        config,
        DataConfig(name="parquet", path=str(root / "tables")),
        DataConfig(name="array", path=str(root / "set.npz")),
    ):
        message = refusal(each)
        assert all(name in message for name in names)


def test_an_array_of_labels_without_images_is_refused(root: Path) -> None:
    np.savez(root / "set.npz", train=random_pixels(20, 6, 5), valid_labels=np.zeros(3, np.int64))
    assert "valid_labels without valid" in refusal(DataConfig(name="array", path=str(root / "set.npz")))


# Shards


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002.parquet is missing"),
        (["train-00001-of-00002"], "train-00000-of-00002.parquet is missing"),
        (["train-0-of-4", "train-3-of-4"], "train-1-of-4.parquet, train-2-of-4.parquet are missing"),
        (["train-00000-of-00001", "test-00000-of-00003"], "test-00001-of-00003.parquet, test-00002-of-00003.parquet"),
        (["train/00000-of-00002"], "00001-of-00002.parquet is missing"),
        (["train-00000-of-00002-6f2c2b0b0d9f9c4a"], "train-00001-of-00002-*.parquet is missing"),
    ],
)
def test_a_shard_that_is_missing_is_named(present: list[str], missing: str, root: Path) -> None:
    for name in present:
        shard(root, f"{name}.parquet", 20)
    assert missing in refusal(DataConfig(name="parquet", path=str(root)))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "train-00000-of-00001"),
        ("train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"),
        ("train", "train/0000"),
        ("train-00000-of-00001", "train/0000"),
        ("train-00000-of-00001-6f2c2b0b0d9f9c4a", "train-00000-of-00001-0123456789abcdef"),
        ("train-00000-of-00001", "train-0-of-1"),
    ],
)
def test_images_that_may_be_there_twice_are_refused(names: tuple[str, ...], root: Path) -> None:
    for name in names:
        shard(root, f"{name}.parquet", 20)
    assert "must hold the train images once" in refusal(DataConfig(name="parquet", path=str(root)))


def test_all_shards_are_read(root: Path) -> None:
    for number in range(3):
        shard(root, f"data/train-{number:05}-of-00003.parquet", 10, seed=number)
    (root / "README.md").write_text("a card")
    config = DataConfig(name="parquet", path=str(root))
    assert counts(config) == (27, 3)
    assert notes(config) == "1 file not read: README.md (not in data/)"


# Files that are not read


def test_everything_in_a_folder_is_read_or_named(root: Path) -> None:
    config = make_folder(root)
    for name in ("notes.txt", "train/images/a.gif", "train/.hidden/0.png", "trian/0.png", "test/images/.DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    said = notes(config)
    assert said.startswith("5 files not read: notes.txt (in no folder of a split), trian/ (in no folder of a split), ")
    assert said.endswith(" and 2 more")
    (root / "notes.txt").unlink()
    (root / "trian" / "0.png").unlink()
    (root / "trian").rmdir()
    assert notes(config) == (
        "3 files not read: train/.hidden/ (hidden), train/images/a.gif (no image file), test/images/.DS_Store (hidden)"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, which this system lacks")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_a_pipe_is_not_waited_for(kind: str, source: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"folder": make_folder, "parquet": make_parquet}[source](root)
    below = "train/images" if source == "folder" else "."
    name = "0.png" if source == "folder" else "train-1.parquet"
    monkeypatch.chdir(root / below)  # the path of a socket is short
    if kind == "pipe":
        os.mkfifo(name)
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
    assert f"{name} (a pipe, a socket or a device)" in notes(config)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, which this system lacks")
def test_a_pipe_in_the_place_of_a_published_file_is_a_missing_file(root: Path) -> None:
    os.mkfifo(root / "binarized_mnist_train.amat")
    assert "binarized_mnist_train.amat" in refusal(DataConfig(name="mnist_static", path=str(root)))


@pytest.mark.parametrize("link", ["file", "folder", "split", "published split"])
def test_a_link_out_of_the_folder_is_followed_only_on_request(link: str, root: Path) -> None:
    outside = root.with_name("elsewhere")
    outside.mkdir()
    config = make_imagenet64(root) if link == "published split" else make_folder(root)
    inside = {"file": "train/images/000.png", "folder": "train/images", "split": "train", "published split": "train"}
    path = root / inside[link]
    target = path.rename(outside / path.name)
    whole = counts_of_copy(config, path, target)
    path.symlink_to(target)
    message = refusal(config)
    assert f"{path} leads to {target}; set `data.follow_links=true`" in message
    followed = config.model_copy(update={"follow_links": True})
    assert counts(followed) == whole


def counts_of_copy(config: DataConfig, path: Path, target: Path) -> tuple[int, ...]:
    target.rename(path)
    forget_loaded()
    found = counts(config)
    path.rename(target)
    return found


def test_links_inside_the_folder_are_followed(root: Path) -> None:
    config = make_folder(root / "real")
    (root / "real" / "train" / "images" / "more.png").symlink_to(root / "real" / "train" / "images" / "000.png")
    (root / "name").symlink_to(root / "real")
    assert counts(config) == counts(config.model_copy(update={"path": str(root / "name")})) == (37, 4, 5)


def test_a_link_to_nowhere_is_an_image_that_is_missing(root: Path) -> None:
    config = make_folder(root)
    (root / "train" / "images" / "gone.png").symlink_to(root / "unmounted" / "gone.png")
    assert "gone.png leads to " in refusal(config)


@pytest.mark.parametrize("name", ["train", "val", "test"])
@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_a_split_that_is_a_link_to_nowhere_is_refused(source: str, name: str, root: Path) -> None:
    """As on a disk that is not mounted: the split must not be carved from other images, or left out."""
    config = make_folder(root) if source == "folder" else DataConfig(name="parquet", path=str(root))
    if (root / name).exists():
        (root / name).rename(root.with_name("kept"))
    if source == "parquet" and name != "train":
        shard(root, "train.parquet", 20)
    (root / name).symlink_to(root / "unmounted" / name)
    assert f"{root / name} leads to {root / 'unmounted' / name}, which is not there" in refusal(config)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot read")
def test_a_folder_that_cannot_be_read_is_no_empty_folder(root: Path) -> None:
    config = make_folder(root)
    closed = root / "train" / "closed"
    closed.mkdir(mode=0)
    try:
        assert "must be readable" in refusal(config)
    finally:
        closed.chmod(0o700)


def test_following_links_is_no_part_of_a_configuration() -> None:
    base = TrialConfig.build(
        {
            "data": {"name": "folder", "path": "images"},
            "model": {"family": "gated", "layers": 2, "channels": 8},
            "likelihood": {"name": "categorical"},
        }
    )
    assert base.override({"data.follow_links": True}).key() == base.key()


# Images that a decoder would change


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()


def png_of_16_bits(colour_type: int, channels: int) -> bytes:
    """A PNG of 4×4 that Pillow itself cannot write: RGB or grey with alpha, in 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(2 * channels * 4)) for _ in range(4))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits() -> bytes:
    """A TIFF of 4×4 RGB in 16 bits, little-endian and not compressed."""
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 206),
               (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, 96)]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    return head.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(range(96))


def turned(pixels: np.ndarray, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels, kind, exif=exif)


FRAMES = [Image.fromarray(random_pixels(4, 4, 3, seed=seed)) for seed in range(2)]
CHANGED = {
    "frames.tif": (encoded(random_pixels(4, 4, 3), "TIFF", save_all=True, append_images=FRAMES), "must have one frame"),
    "frames.png": (encoded(random_pixels(4, 4, 3), "PNG", save_all=True, append_images=FRAMES), "must have one frame"),
    "frames.webp": (
        encoded(random_pixels(4, 4, 3), "WEBP", save_all=True, append_images=FRAMES),
        "must have one frame",
    ),
    "turned.jpg": (turned(random_pixels(4, 4, 3), "JPEG"), "rotation"),
    "turned.png": (turned(random_pixels(4, 4, 3), "PNG"), "rotation"),
    "turned.tif": (turned(random_pixels(4, 4, 3), "TIFF"), "rotation"),
    "turned.webp": (turned(random_pixels(4, 4, 3), "WEBP"), "rotation"),
    "deep.png": (png_of_16_bits(2, 3), "8 bits"),
    "deep_alpha.png": (png_of_16_bits(4, 2), "8 bits"),
    "deep.tif": (encoded(np.zeros((4, 4), np.uint16), "TIFF"), "8 bits"),
    "deep_rgb.tif": (tiff_of_16_bits(), "8 bits"),
    "deep.ppm": (b"P6 4 4 65535\n" + bytes(96), "8 bits"),
    "deep_text.ppm": (b"P3 4 4 1023\n" + b"1000 " * 48, "8 bits"),
}


@pytest.mark.parametrize("source", ["folder", "parquet"])
@pytest.mark.parametrize("name", CHANGED)
def test_what_a_decoder_would_change_is_refused(name: str, source: str, root: Path) -> None:
    content, says = CHANGED[name]
    if source == "folder":
        for index, pixels in enumerate(random_pixels(20, 4, 4, 3)):
            save_image(root / "train" / f"{index:02}.png", pixels)
        (root / "train" / name).write_bytes(content)
    else:
        images = [png(pixels) for pixels in random_pixels(20, 4, 4, 3)]
        write_parquet(root / "train.parquet", [*images, content])
    message = refusal(DataConfig(name=source, path=str(root)))
    assert (name if source == "folder" else "row 20") in message
    assert says in message


def test_upright_images_of_one_frame_and_8_bits_are_read(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    kinds = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "webp": "WEBP", "ppm": "PPM", "tif": "TIFF"}
    for suffix, kind in kinds.items():
        (root / "train").mkdir(exist_ok=True)
        options = {"exif": exif} if suffix in ("png", "jpg", "webp") else {}
        (root / "train" / f"{suffix}.{suffix}").write_bytes(encoded(random_pixels(4, 4, 3), kind, **options))
    assert counts(DataConfig(name="folder", path=str(root), num_valid=1)) == (len(kinds) - 1, 1)


# Images in two splits


@pytest.mark.parametrize("source", ["array", "folder"])
def test_training_images_that_are_in_the_test_set_are_counted_and_kept(source: str, root: Path) -> None:
    train, valid, test = random_pixels(20, 6, 5), random_pixels(4, 6, 5, seed=1), random_pixels(5, 6, 5, seed=2)
    train[3], train[17], valid[1] = test[0], test[0], test[4]
    if source == "array":
        np.savez(root / "set.npz", train=train, valid=valid, test=test)
        config = DataConfig(name="array", path=str(root / "set.npz"))
    else:
        for split, images in (("train", train), ("valid", valid), ("test", test)):
            for index, pixels in enumerate(images):
                save_image(root / split / f"{index:02}.png", pixels)
        config = DataConfig(name="folder", path=str(root))
    wanted = (
        "2 of the 20 training images are also in the test set, pixel by pixel",
        "1 of the 4 validation images are also in the test set, pixel by pixel",
    )
    assert load_data(config).notes == wanted
    forget_loaded()
    assert load_data(config).notes == wanted  # from the node's copy
    assert counts(config) == (20, 4, 5)


# Labels


def with_labels(root: Path, train: list[int], test: list[int]) -> DataConfig:
    np.savez(
        root / "set.npz",
        train=random_pixels(len(train), 6, 5),
        train_labels=np.array(train),
        test=random_pixels(len(test), 6, 5, seed=1),
        test_labels=np.array(test),
    )
    return DataConfig(name="array", path=str(root / "set.npz"))


def test_labels_from_1_on_are_refused_with_what_to_do(root: Path) -> None:
    message = refusal(with_labels(root, [1, 2, 3] * 7, [1, 2]))
    assert "labels of source array must be 0..K-1, but begin at 1 and reach 3; subtract 1 from each" in message


@pytest.mark.parametrize("labels", [[0, 40_313, 7], [100, 200, 300], [0, 9]])
def test_labels_that_are_ids_are_refused_with_their_number(labels: list[int], root: Path) -> None:
    message = refusal(with_labels(root, labels * 7, labels))
    assert f"but {len(labels)} numbers are in use and the largest is {max(labels):,}" in message


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 2, 3], [2, 0], [0]])
def test_class_numbers_may_have_gaps(labels: list[int], root: Path) -> None:
    assert load_data(with_labels(root, labels * 7, labels[:1])).form.num_classes == max(labels) + 1


CONDITIONAL = {
    "model": {"family": "gated", "layers": 2, "channels": 8, "conditioning": "bias"},
    "likelihood": {"name": "categorical"},
    "train": {"images": 64, "batch_size": 4},
}


def test_an_error_of_a_conditional_model_says_why_labels_do_not_count(root: Path) -> None:
    config = with_labels(root, [0, 1, 2] * 7, [0, -1, -1])
    said = "labels are not used: 2 of the 3 test images have the label -1, for none"
    assert load_data(config).notes == (said,)
    with pytest.raises(ConfigError, match=said):
        resolve(TrialConfig.build({"data": config.model_dump(), **CONDITIONAL}))


@pytest.mark.parametrize("columns", [("fine_label", "coarse_label"), ("labels",), ("Label",)])
def test_columns_of_labels_by_another_name_are_named(columns: tuple[str, ...], root: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    images = [{"bytes": png(pixels), "path": None} for pixels in random_pixels(20, 6, 5, 3)]
    table = pa.table({"image": images} | {name: [0, 1] * 10 for name in columns})
    parquet.write_table(table, root / "train.parquet")
    config = DataConfig(name="parquet", path=str(root))
    for name in columns:
        assert f"column {name} (labels are read from a column label)" in notes(config)
    with pytest.raises(ConfigError, match=columns[0]):
        resolve(TrialConfig.build({"data": config.model_dump(), **CONDITIONAL}))
