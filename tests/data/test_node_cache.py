"""The decoded copy on the node: two at once, damage, and a disk that says no."""

from __future__ import annotations

import errno
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_sets import make_array, make_folder, random_pixels, save_image

from pixeltune.config import DataConfig
from pixeltune.data import SOURCES, RawData, cache, load_data, locks
from pixeltune.data.load import forget_loaded
from pixeltune.data.readers import arrays


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

    monkeypatch.setattr(locks, "_try_lock", lambda _: True)
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


def test_a_new_option_of_training_leaves_folders_where_they_are() -> None:
    config = DataConfig(name="digits", levels=4)
    for flip in (False, True):
        folder = cache.entry_folder(Path("/cache"), config.model_copy(update={"flip": flip}), [])
        assert folder == Path("/cache/prepared/digits-ac8609e3dfc50c9c")


def test_a_second_load_does_not_read_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder(tmp_path / "source")
    first = load_data(config)
    assert load_data(config) is first
    forget_loaded()
    monkeypatch.setattr("pixeltune.data.readers.pictures.Decoder.decode", None)
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
