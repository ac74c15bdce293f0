"""Images that use few of their levels are reported, and not quantised or binarised into black ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltune.config import DataConfig
from pixeltune.data import DataSet, ImageSet, load_data
from pixeltune.data.load import forget_loaded
from pixeltune.data.used_levels import unused_levels_note
from pixeltune.errors import ConfigError
from tests.support.image_sets import MAKERS, random_pixels, save_image, shared


def with_levels(*levels: int, count: int = 200) -> np.ndarray:
    """(count, 8, 8) of these levels alone."""
    return np.array(levels, np.uint8)[random_pixels(count, 8, 8, levels=len(levels))]


def load(folder: Path, pixels: np.ndarray, declared: int | None = None, **options: Any) -> DataSet:
    np.savez(folder / "set.npz", train=pixels, **({} if declared is None else {"levels": declared}))
    forget_loaded()
    return load_data(DataConfig(name="array", path=str(folder / "set.npz"), num_valid=10, **options))


def notes(data: DataSet) -> list[str]:
    return [note for note in data.notes if "levels" in note]


FEW = {
    "0 and 1": ((0, 1), "only 2 of 256 levels occur (0, 1)", "declare 2 as `levels` of a .npz"),
    "16": (tuple(range(16)), "only 16 of 256 levels occur (0, 1, … 15)", "declare 16 as `levels`"),
    "5 bits": (tuple(range(32)), "only 32 of 256", "declare 32 as `levels`"),
    "all but one": ((0, 1, 2, 4), "(0, 1, 2, 4)", "declare 5 as `levels`"),
    "thresholded": ((0, 255), "(0, 255)", "`data.levels=2` numbers these levels 0 to 1"),
    "three of a scan": ((0, 128, 255), "(0, 128, 255)", "`data.levels=3` numbers"),
    "4 bits, shifted": (tuple(range(0, 256, 16)), "(0, 16, … 240)", "`data.levels=16` numbers"),
    "4 bits, stretched": (tuple(range(0, 256, 17)), "(0, 17, … 255)", "`data.levels=16` numbers"),
    "uneven": ((0, 3, 200), "(0, 3, 200)", "number the levels that occur 0 to 2, and declare 3"),
    "constant": ((7,), "only 1 of 256 levels occur (7)", "see whether the images were read"),
}


@pytest.mark.parametrize("kind", FEW)
def test_few_levels_are_reported_with_what_to_do(kind: str, tmp_path: Path) -> None:
    levels, found, advice = FEW[kind]
    for _ in range(2):  # when they are decoded, and when they come from the cache
        data = load(tmp_path, with_levels(*levels))
        (line,) = notes(data)
        assert found in line
        assert advice in line
        assert "\n" not in line
        assert data.form.levels == 256


@pytest.mark.parametrize("binarise", ["static", "dynamic", "threshold"])
@pytest.mark.parametrize("kind", FEW)
def test_few_levels_are_not_binarised(kind: str, binarise: str, tmp_path: Path) -> None:
    levels, found, advice = FEW[kind]
    with pytest.raises(ConfigError, match=r"^`data\.binarise` must have grey levels, but of array") as caught:
        load(tmp_path, with_levels(*levels), binarise=binarise)
    assert found in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "into", "says"),
    [((0, 1), 2, "merge into 1;"), (tuple(range(16)), 16, "merge into 1;"), ((0, 3, 200), 4, "merge into 2;")],
)
def test_few_levels_are_not_merged(levels: tuple[int, ...], into: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, with_levels(*levels), levels=into)


@pytest.mark.parametrize("kind", ["thresholded", "three of a scan", "4 bits, shifted", "4 bits, stretched"])
def test_the_advice_to_quantise_keeps_every_level(kind: str, tmp_path: Path) -> None:
    levels = FEW[kind][0]
    pixels = with_levels(*levels)
    data = load(tmp_path, pixels, levels=len(levels))
    assert np.unique(data.train.pixels_NCHW).tolist() == list(range(len(levels)))
    assert notes(data) == []
    if len(levels) > 2:
        assert load(tmp_path, pixels, levels=len(levels), binarise="threshold").form.levels == 2


@pytest.mark.parametrize("declared", [2, 4, 16, 32])
def test_declared_levels_are_used(declared: int, tmp_path: Path) -> None:
    data = load(tmp_path, with_levels(*range(declared)), declared)
    assert data.form.levels == declared
    if declared > 2:
        assert notes(load(tmp_path, with_levels(*range(declared)), declared, binarise="static")) == []
    assert notes(data) == []


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_on_another_scale_than_training_is_reported(split: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train=with_levels(*range(256)), **{split: with_levels(0, 1)})
    (line,) = notes(load_data(DataConfig(name="array", path=str(tmp_path / "set.npz"))))
    assert line.startswith({"valid": "validation", "test": "test"}[split] + " images should use the levels")
    assert "only 2 of 256 levels occur (0, 1)" in line


def test_a_few_of_fewer_declared_levels(tmp_path: Path) -> None:
    (line,) = notes(load(tmp_path, with_levels(0, 1), 16))
    assert "only 2 of 16 levels occur (0, 1)" in line


def test_pictures_of_two_colours_are_reported(tmp_path: Path) -> None:
    """A folder declares no levels."""
    for index, pixels in enumerate(with_levels(0, 255, count=20)):
        save_image(tmp_path / "train" / f"{index}.png", pixels)
    data = load_data(DataConfig(name="folder", path=str(tmp_path), num_valid=2))
    assert "`data.levels=2`" in notes(data)[0]


def test_grey_counts_levels_of_the_grey(tmp_path: Path) -> None:
    """All levels of all colours may occur, and still few greys."""
    pixels = np.stack([with_levels(*range(256))] * 3, axis=-1)
    pixels[..., 1] = 255 - pixels[..., 0]
    assert load(tmp_path, pixels, binarise="static").form.levels == 2
    with pytest.raises(ConfigError, match="only 46 of 256 levels occur"):
        load(tmp_path, pixels, grey=True, binarise="static")


@pytest.mark.parametrize("name", MAKERS)
def test_no_source_is_bothered(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "cifar10":
        request.getfixturevalue("trust_cifar10")
    config = MAKERS[name](tmp_path / "source")
    has_greys = load_data(config).form.levels > 2
    for levels in (None, 4) if has_greys else (None,):
        for binarise in ("none", "static", "dynamic") if has_greys else ("none",):
            data = load_data(config.model_copy(update={"levels": levels, "binarise": binarise}))
            assert notes(data) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_small_images_is_not_bothered(count: int, tmp_path: Path) -> None:
    for seed in range(20):
        np.savez(tmp_path / "set.npz", train=np.tile(random_pixels(count + 1, 4, 4, seed=seed), (1, 1, 1)))
        forget_loaded()
        assert notes(load_data(DataConfig(name="array", path=str(tmp_path / "set.npz"), num_valid=1))) == []


@pytest.mark.parametrize("count", [3, 10])
def test_real_digits_are_not_bothered(count: int) -> None:
    mnist = load_data(DataConfig(name="mnist", path=str(shared("MNIST").parent), download=False))
    pixels_NCHW = mnist.train.pixels_NCHW
    for start in range(0, 300 * count, count):
        assert unused_levels_note(_part_of(mnist, pixels_NCHW[start : start + count])) is None


def _part_of(data: DataSet, pixels_NCHW: np.ndarray) -> DataSet:
    return replace(data, train=ImageSet(pixels_NCHW))
