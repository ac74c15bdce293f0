"""The decoded copy on the node: two at once, damage, and a disk that says no."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, RawData, cache, file_lock, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.data.readers import arrays
from tests.support.image_sets import make_array, make_folder, random_pixels, save_image


def entries(root: Path) -> list[Path]:
    return sorted(path for path in (root / "prepared").iterdir() if not path.name.startswith(".lock-"))


def load_and_tell(config: DataConfig, barrier: object, queue: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    queue.put(load_data(config).identity.checksum)  # type: ignore[attr-defined]


def test_two_processes_at_once(tmp_path: Path, own_cache: Path) -> None:
    config = make_array(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=load_and_tell, args=(config, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    checksums = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert checksums == {load_data(config).identity.checksum}
    assert len(entries(own_cache)) == 1


def test_the_loser_of_a_race_takes_the_winners(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_array(tmp_path)
    reads: list[str] = []

    def read_while_another_publishes(config: DataConfig) -> RawData:
        reads.append(config.name)
        if len(reads) == 1:
            load_data(config)
        return arrays.read(config)

    monkeypatch.setattr(file_lock, "_try_lock", lambda _: True)
    monkeypatch.setitem(SOURCES, "array", replace(SOURCES["array"], read=read_while_another_publishes))
    data = load_data(config)
    assert len(reads) == 2
    (entry,) = entries(own_cache)
    published = cache.open_entry(entry)
    assert published is not None
    assert published.identity == data.identity


def test_flips_are_no_part_of_what_is_cached(tmp_path: Path, own_cache: Path) -> None:
    plain = make_array(tmp_path)
    flipped = plain.model_copy(update={"flip": True})
    assert load_data(flipped) is load_data(plain)
    forget_loaded()
    assert load_data(flipped).identity == load_data(plain).identity
    assert len(entries(own_cache)) == 1


def test_options_that_change_no_cached_image_leave_folders_where_they_are() -> None:
    config = DataConfig(name="digits", levels=4)
    for same in ({}, {"flip": True}, {"follow_links": True}, {"download": True}, {"path": "elsewhere"}):
        folder = cache.entry_folder(Path("/cache"), config.model_copy(update=same), [])
        assert folder == Path("/cache/prepared/digits-0f659f1b76fe6b25")


def test_a_second_load_does_not_read_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder(tmp_path / "source")
    first = load_data(config)
    assert load_data(config) is first
    forget_loaded()
    monkeypatch.setattr("pixeltune.data.readers.image_decoder.Decoder.decode", None)
    assert np.array_equal(load_data(config).train.pixels_NCHW, first.train.pixels_NCHW)


def test_pixels_are_mapped(tmp_path: Path) -> None:
    pixels = load_data(make_array(tmp_path)).train.pixels_NCHW
    base: object = pixels
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_a_changed_source_is_read_again(tmp_path: Path) -> None:
    config = make_folder(tmp_path / "source")
    before = load_data(config).identity
    save_image(tmp_path / "source" / "test" / "images" / "004.png", random_pixels(6, 5, 3, seed=99))
    forget_loaded()
    assert load_data(config).identity != before


def test_a_copy_elsewhere_has_the_same_identity(tmp_path: Path) -> None:
    assert load_data(make_folder(tmp_path / "one")).identity == load_data(make_folder(tmp_path / "two")).identity


@pytest.mark.parametrize("damage", ["cut pixels", "cut meta", "no labels", "meta of another shape"])
def test_a_damaged_entry_is_made_again(damage: str, tmp_path: Path, own_cache: Path) -> None:
    config = make_array(tmp_path)
    whole = np.array(load_data(config).train.pixels_NCHW)
    forget_loaded()
    (entry,) = entries(own_cache)
    if damage == "cut pixels":
        (entry / "train.npy").write_bytes((entry / "train.npy").read_bytes()[:-10])
    elif damage == "cut meta":
        (entry / "meta.json").write_bytes((entry / "meta.json").read_bytes()[:50])
    elif damage == "no labels":
        (entry / "valid_labels.npy").unlink()
    else:
        (entry / "meta.json").write_text("[]")
    assert np.array_equal(load_data(config).train.pixels_NCHW, whole)
    (entry,) = entries(own_cache)
    assert cache.open_entry(entry) is not None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_says_no_is_one_warning(
    number: int,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_array(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(number, "the disk says no")

    monkeypatch.setattr(cache, "_write_pixels", refuse)
    with caplog.at_level(logging.WARNING):
        data = load_data(config)
    assert len(data.train) + len(data.valid) == 60
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "\n" not in caplog.text.strip()
    assert "the disk says no" in caplog.text
    assert entries(own_cache) == []


def replace_in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def replace_by_rename(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


@pytest.mark.parametrize("how", [replace_in_place, replace_by_rename])
@pytest.mark.parametrize("name", ["set.npy", "train/7.bmp"])
def test_a_file_of_the_same_size_and_time_is_another(
    how: Callable[[Path, bytes], None], name: str, tmp_path: Path
) -> None:
    """As after a copy that keeps times, of a file whose size does not depend on its pixels."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)

    def content(top: int) -> bytes:
        if name == "set.npy":
            np.save(tmp_path / "made.npy", random_pixels(60, 6, 5, levels=top))
            return (tmp_path / "made.npy").read_bytes()
        save_image(tmp_path / "made.bmp", random_pixels(6, 5, 3, levels=top))
        return (tmp_path / "made.bmp").read_bytes()

    source = "array" if name == "set.npy" else "folder"
    if source == "folder":
        for index, pixels in enumerate(random_pixels(7, 6, 5, 3)):
            save_image(tmp_path / "train" / f"{index}.bmp", pixels)
    config = DataConfig(name=source, path=str(path if source == "array" else tmp_path))
    checksums = []
    for top in (4, 200):
        how(path, content(top))
        os.utime(path, (1_500_000_000,) * 2)
        forget_loaded()
        checksums.append(load_data(config).identity.checksum)
    assert checksums[0] != checksums[1]


def test_the_content_counts_where_neither_inode_nor_times_say_a_thing(tmp_path: Path) -> None:
    """As on a file system that keeps none of them: blocks all over a file are looked at."""
    path = tmp_path / "file"
    content = bytearray(random_pixels(3_000_000).tobytes())
    path.write_bytes(content)
    before = cache._sampled_digest(path, len(content))
    for place in (0, len(content) - 1):
        content[place] ^= 1
        path.write_bytes(content)
        content[place] ^= 1
        assert cache._sampled_digest(path, len(content)) != before
    path.write_bytes(random_pixels(3_000_000, seed=1).tobytes())
    assert cache._sampled_digest(path, len(content)) != before
    small = tmp_path / "small"
    for place in range(0, 20_000, 999):
        small.write_bytes(bytes(place) + b"x" + bytes(20_000 - place))
        before, _ = cache._sampled_digest(small, 20_001), small.write_bytes(bytes(20_001))
        assert cache._sampled_digest(small, 20_001) != before


@pytest.mark.parametrize("file", ["train.npy", "valid.npy", "test_labels.npy"])
@pytest.mark.parametrize("place", [-1, -40])
def test_a_byte_that_changed_in_the_copy_is_noticed(
    file: str, place: int, tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_array(tmp_path)
    before = load_data(config)
    whole = {"train": np.array(before.train.pixels_NCHW), "valid": np.array(before.valid.pixels_NCHW)}
    (entry,) = entries(own_cache)
    content = bytearray((entry / file).read_bytes())
    content[place] ^= 1
    (entry / file).write_bytes(content)
    forget_loaded()
    data = load_data(config)
    assert np.array_equal(data.train.pixels_NCHW, whole["train"])
    assert np.array_equal(data.valid.pixels_NCHW, whole["valid"])
    assert f"{entry / file} must be as it was written" in caplog.text


def test_of_a_large_copy_blocks_all_over_it_are_checked(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(cache, "_CHECKED_WHOLE_BYTES", 1)
    monkeypatch.setattr(cache, "_CHECKED_BLOCKS", 4)
    config = make_array(tmp_path)
    load_data(config)
    (entry,) = entries(own_cache)
    assert cache.open_entry(entry) is not None
    size = (entry / "train.npy").stat().st_size
    (entry / "train.npy").write_bytes((entry / "train.npy").read_bytes()[: size // 2] + bytes(size - size // 2))
    assert cache.open_entry(entry) is None


OWN_CODE = """
import importlib
import numpy as np
from pixeltune.data import ImageSet, RawData
from own_helper import top
from own_package.sizes import COUNT

def images(config):
    from own_late import SEED
    shift = importlib.import_module("own_named").SHIFT
    pixels = shift + np.random.default_rng(SEED).integers(0, top(), (COUNT, 4, 4), dtype=np.uint8)
    return RawData(train=ImageSet(pixels[:, None]))

images.files = lambda config: [config.path]
"""
OWN_FILES = {
    "own_code.py": OWN_CODE,
    "own_helper.py": "LEVELS = 10\n\ndef top():\n    return LEVELS\n",
    "own_package/__init__.py": "",
    "own_package/sizes.py": "from .numbers import COUNT\n",
    "own_package/numbers.py": "COUNT = 20\n",
    "own_late.py": "SEED = 0\n",
    "own_named.py": "SHIFT = 1\n",
    "content": "images",
    "unused.py": "UNUSED = 1",
}
"""Functions and constants, imported at the head of a module, in a function, through a package and by name."""


@pytest.mark.parametrize("changed", [name for name in OWN_FILES if name != "unused.py"])
def test_a_function_of_ones_own_is_run_again_when_its_code_or_its_files_change(
    changed: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in OWN_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]  # of the case before
    config = DataConfig(name="own_code:images", path=str(tmp_path / "content"))
    load_data(config)
    replace_in_place(tmp_path / "unused.py", b"UNUSED = 2")
    forget_loaded()
    load_data(config)
    assert len(entries(own_cache)) == 1
    stat = (tmp_path / changed).stat()
    replace_in_place(tmp_path / changed, OWN_FILES[changed].encode() + b"\n")
    os.utime(tmp_path / changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    forget_loaded()
    load_data(config)
    assert len(entries(own_cache)) == 2
