"""The checks that need the data's shape, and the order-0 baseline."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pixeltune.config import DataConfig, TrialConfig
from pixeltune.data import load_data, order0_bits_per_dim, resolve
from pixeltune.errors import ConfigError, DataError
from tests.support.image_sets import make_array, random_pixels

BASE = TrialConfig.build(
    {
        "data": {"name": "digits"},
        "model": {"family": "gated", "channels": 8, "layers": 2, "kernel_size": 3},
        "likelihood": {"name": "categorical"},
        "train": {"images": 3200, "batch_size": 32},
    }
)


def test_report_every_is_one_pass_in_whole_batches() -> None:
    resolved = resolve(BASE)
    assert resolved.config.train.report_every == 1077 // 32 * 32
    assert BASE.train.report_every is None
    assert resolve(BASE.override({"train.images": 64})).config.train.report_every == 64
    assert resolve(BASE.override({"train.report_every": 320})).config.train.report_every == 320
    assert resolve(BASE.override({"data.fraction": 0.03})).config.train.report_every == 32


def test_what_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        resolve(BASE.override({"data.fraction": 0.01}))
    with pytest.raises(ConfigError, match="bernoulli needs data of 2 levels"):
        resolve(BASE.override({"likelihood.name": "bernoulli"}))
    assert resolve(BASE.override({"likelihood.name": "bernoulli", "data.binarise": "static"})).data.form.levels == 2
    config = make_array(tmp_path)
    changes = {"data.name": "array", "data.path": config.path, "model.channels": 2}
    with pytest.raises(ConfigError, match=r"model\.channels"):
        resolve(BASE.override(changes))
    with pytest.raises(DataError):
        resolve(BASE.override(changes | {"data.path": str(tmp_path / "absent")}))


def by_hand(train_NCHW: np.ndarray, images_NCHW: np.ndarray, levels: int) -> float:
    """Add-½ histograms in plain Python."""
    bits = 0.0
    for place in itertools.product(*map(range, train_NCHW.shape[1:])):
        counts = Counter(int(image[place]) for image in train_NCHW)
        for image in images_NCHW:
            p = (counts[int(image[place])] + 0.5) / (len(train_NCHW) + levels / 2)
            bits -= math.log2(p)
    return bits / images_NCHW.size


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_baseline_equals_the_hand_computation(split: str, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "set.npz", train=random_pixels(30, 3, 2, 4, levels=5),
        test=random_pixels(9, 3, 2, 4, seed=1, levels=5), levels=5,
    )  # fmt: skip
    data = load_data(DataConfig(name="array", path=str(tmp_path / "set.npz")))
    images = getattr(data, split).pixels_NCHW
    wanted = by_hand(data.train.pixels_NCHW, images, levels=5)
    assert order0_bits_per_dim(data, split) == pytest.approx(wanted, rel=1e-12)


def test_baseline_of_digits() -> None:
    assert order0_bits_per_dim(load_data(DataConfig(name="digits"))) == pytest.approx(2.4314, abs=1e-4)


def test_dynamic_baseline_is_the_limit_of_many_draws() -> None:
    data = load_data(DataConfig(name="digits", binarise="dynamic"))
    epochs, count = 20, len(data.train)
    drawn = [data.train_batch(np.arange(count), np.full(count, epoch)) for epoch in range(epochs)]
    p_CHW = (np.mean(drawn, axis=(0, 1)) * count + 0.5) / (count + 1)
    ones = data.valid.pixels_NCHW == 1
    wanted = -np.log2(np.where(ones, p_CHW, 1 - p_CHW)).mean()
    assert order0_bits_per_dim(data) == pytest.approx(wanted, abs=2e-3)


def test_baseline_of_a_split_that_is_not_there(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", random_pixels(20, 4, 4))
    data = load_data(DataConfig(name="array", path=str(tmp_path / "set.npy")))
    with pytest.raises(DataError, match="'test'"):
        order0_bits_per_dim(data, "test")


def test_images_of_one_column_cannot_be_flipped(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", random_pixels(60, 5, 1))
    config = BASE.override({"data.name": "array", "data.path": str(tmp_path / "set.npy")})
    resolve(config)
    with pytest.raises(ConfigError, match=r"`data\.flip` needs images at least 2 wide") as caught:
        resolve(config.override({"data.flip": True}))
    assert "\n" not in str(caught.value)
