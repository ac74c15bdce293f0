"""A test set that is held out of images without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.config import DataConfig, TrialConfig
from pixeltune.data import load_data
from pixeltune.data.outline import outline_of
from pixeltune.errors import ConfigError, MissingDataError
from tests.support.image_sets import make_folder, random_pixels, save_image
from tests.support.toy_search import toy_config


def flat_folder(root: Path, *, classes: tuple[str, ...] = ("",), count: int = 40) -> Path:
    """Images directly below `root`, or in class folders, each of its own pixels."""
    for index, pixels in enumerate(random_pixels(count, 6, 5, 1, seed=3)):
        save_image(root / classes[index % len(classes)] / f"{index:03}.png", pixels[..., 0])
    return root


def held_out(root: Path, **options: Any) -> DataConfig:
    return DataConfig(name="folder", path=str(root), **({"test_fraction": 0.25} | options))


def pixels_of(config: DataConfig, split: str) -> set[bytes]:
    images = getattr(load_data(config), split)
    return {pixels.tobytes() for pixels in images.pixels_NCHW}


def test_a_flat_folder_is_split_into_three(tmp_path: Path) -> None:
    config = held_out(flat_folder(tmp_path), num_valid=6)
    splits = [pixels_of(config, split) for split in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [24, 6, 10]
    assert len(set.union(*splits)) == 40, "no image is in two splits, none is left out"
    assert outline_of(config).num_images == {"train": 24, "valid": 6, "test": 10}


def test_the_test_set_depends_on_its_seed_and_share_alone(tmp_path: Path) -> None:
    root = flat_folder(tmp_path)
    test = pixels_of(held_out(root), "test")
    for options in ({"num_valid": 3}, {"fraction": 0.5}, {"train_on_valid": True}):
        assert pixels_of(held_out(root, **options), "test") == test
    assert pixels_of(held_out(root, split_seed=1), "test") != test
    assert pixels_of(held_out(root, test_fraction=0.5), "test") > test


def test_class_folders_are_labels(tmp_path: Path) -> None:
    data = load_data(held_out(flat_folder(tmp_path, classes=("cats", "dogs"))))
    assert data.form.num_classes == 2
    assert data.test is not None
    assert set(data.test.labels_N) == {0, 1}


def test_binarised_images_are_held_out_alike(tmp_path: Path) -> None:
    root = flat_folder(tmp_path)
    static, dynamic = (load_data(held_out(root, binarise=kind)).test for kind in ("static", "dynamic"))
    assert static is not None
    assert dynamic is not None
    assert np.array_equal(static.pixels_NCHW, dynamic.pixels_NCHW)


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    root = flat_folder(tmp_path / "flat", count=3)
    with pytest.raises(MissingDataError, match=r"must hold a folder train .* --set data\.test_fraction=0\.1"):
        load_data(DataConfig(name="folder", path=str(root)))
    with pytest.raises(ConfigError, match=r"must leave training images, but 0\.99 of the 3 images of folder are all"):
        load_data(held_out(root, test_fraction=0.99))
    with_test = make_folder(tmp_path / "split").model_copy(update={"test_fraction": 0.1})
    with pytest.raises(ConfigError, match=r"must be 0 for folder, which has a test split of 5 images, but got 0\.1"):
        load_data(with_test)
    (root / "valid").mkdir()
    with pytest.raises(MissingDataError, match="must hold a folder train"):
        load_data(held_out(root))


def test_a_configuration_without_it_keeps_its_key() -> None:
    plain = toy_config()
    assert TrialConfig.from_flat(plain.flat() | {"data.test_fraction": 0.0}).key() == plain.key()
    assert plain.override({"data.name": "array", "data.test_fraction": 0.1}).key() != plain.key()
