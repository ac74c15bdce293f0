"""Quantising and binarising."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeltune.config import DataConfig
from pixeltune.data import ImageSet, RawData, counter_rng, load_data
from pixeltune.data.dataset import draw_binary
from pixeltune.data.prepare import formation_of

DIGITS = DataConfig(name="digits")


def all_levels(levels: int) -> RawData:
    return RawData(ImageSet(np.arange(levels, dtype=np.uint8).reshape(1, 1, 1, -1)), levels=levels)


@given(source=st.integers(2, 256), data=st.data())
def test_quantising_is_monotone_onto_and_even(source: int, data: st.DataObject) -> None:
    levels = data.draw(st.integers(2, source))
    config = DataConfig(name="digits", levels=levels)
    formation = formation_of(all_levels(source), config, already_grey=False)
    out = formation.apply(all_levels(source).train.pixels_NCHW, stream="train", rows_N=np.arange(1)).ravel()
    assert out.tolist() == [value * levels // source for value in range(source)]
    assert np.unique(out).tolist() == list(range(levels))
    assert np.ptp(np.bincount(out)) <= 1


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_threshold_cuts_at_half(levels: int) -> None:
    formation = formation_of(all_levels(levels), DataConfig(name="digits", binarise="threshold"), already_grey=False)
    out = formation.apply(all_levels(levels).train.pixels_NCHW, stream="train", rows_N=np.arange(1)).ravel()
    assert out.tolist() == [int(value / (levels - 1) > 0.5 or 2 * value == levels) for value in range(levels)]


def test_a_draw_has_the_probability_of_its_level() -> None:
    levels, count = 17, 20_000
    pixels = np.broadcast_to(np.arange(levels, dtype=np.uint8), (count, 1, 1, levels))
    drawn = draw_binary(pixels, counter_rng.keys(0, "test", np.arange(count)), levels=levels)
    p_K = np.arange(levels) / (levels - 1)
    spread_K = np.sqrt(p_K * (1 - p_K) / count)
    assert (np.abs(drawn.mean(axis=(0, 1, 2)) - p_K) <= 4 * spread_K).all()


def test_draws_are_uniform_and_uncorrelated_between_neighbours() -> None:
    values = counter_rng.below(
        counter_rng.keys(3, "test", np.repeat(np.arange(200), 2), np.tile(np.arange(2), 200)), 500, 10
    )
    counts = np.bincount(values.astype(np.int64).ravel(), minlength=10)
    expected = values.size / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi², 9 degrees of freedom, p = 0.001
    centred = values.astype(np.float64) - 4.5
    for product in (centred[:, 1:] * centred[:, :-1], centred[1:] * centred[:-1]):
        assert abs(product.mean()) < 4 * 8.25 / np.sqrt(product.size)


def test_draws_are_splitmix64() -> None:
    bits = counter_rng._mix(np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 3, dtype=np.uint64))
    assert [int(value) for value in bits] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_permutations_never_change() -> None:
    assert counter_rng.permutation(0, "split", 8).tolist() == [6, 0, 5, 2, 1, 7, 4, 3]
    assert sorted(counter_rng.permutation(1, "split", 1000)) == list(range(1000))


def test_static_binarisation_is_of_the_image_and_the_seed() -> None:
    one, again, other = (
        load_data(DIGITS.model_copy(update={"binarise": "static", "binarise_seed": seed, "split_seed": split}))
        for seed, split in ((0, 0), (0, 1), (1, 0))
    )
    assert one.form.levels == 2
    together = [
        sorted(image.tobytes() for image in np.concatenate([data.train.pixels_NCHW, data.valid.pixels_NCHW]))
        for data in (one, again, other)
    ]
    assert together[0] == together[1]  # another split moves the binary images, it does not redraw them
    assert together[0] != together[2]
    grey = load_data(DIGITS)
    assert not one.train.pixels_NCHW[grey.train.pixels_NCHW == 0].any()
    assert one.train.pixels_NCHW[grey.train.pixels_NCHW == 16].all()
    assert one.test is not None
    assert grey.test is not None
    keys_N = counter_rng.keys(0, "static/test", np.arange(len(grey.test)))  # no draw of training images comes again
    assert np.array_equal(one.test.pixels_NCHW, draw_binary(grey.test.pixels_NCHW, keys_N, levels=17))


def test_binarising_after_quantising() -> None:
    data = load_data(DIGITS.model_copy(update={"levels": 3, "binarise": "dynamic"}))
    assert data.dynamic is not None
    assert data.dynamic.levels == 3
    assert data.train.pixels_NCHW.max() == 2


def test_dynamic_draws_do_not_depend_on_the_batch() -> None:
    data = load_data(DIGITS.model_copy(update={"binarise": "dynamic"}))
    indices, epochs = np.arange(40), np.arange(40) // 10
    whole = data.train_batch(indices, epochs)
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(data.train_batch(indices[order], epochs[order]), whole[order])
    alone = np.concatenate([data.train_batch(indices[i : i + 1], epochs[i : i + 1]) for i in range(40)])
    assert np.array_equal(alone, whole)


def test_dynamic_draws_change_with_epoch_and_seed_and_average_to_grey() -> None:
    data, reseeded = (
        load_data(DIGITS.model_copy(update={"binarise": "dynamic", "binarise_seed": seed})) for seed in (0, 1)
    )
    indices, zeros = np.arange(20), np.zeros(20, np.int64)
    assert (data.train_batch(indices, zeros) != data.train_batch(indices, zeros + 1)).any()
    assert (data.train_batch(indices, zeros) != reseeded.train_batch(indices, zeros)).any()
    assert data.train_batch(indices, zeros).max() == 1
    epochs = 2_000
    drawn = data.train_batch(np.zeros(epochs, np.int64), np.arange(epochs)).mean(axis=0)
    assert np.abs(drawn - data.train.pixels_NCHW[0] / 16).max() < 5 * 0.5 / np.sqrt(epochs)


def test_dynamic_evaluates_on_the_static_draw() -> None:
    dynamic, static = (load_data(DIGITS.model_copy(update={"binarise": kind})) for kind in ("dynamic", "static"))
    assert np.array_equal(dynamic.valid.pixels_NCHW, static.valid.pixels_NCHW)
    assert dynamic.test is not None
    assert static.test is not None
    assert np.array_equal(dynamic.test.pixels_NCHW, static.test.pixels_NCHW)
    assert dynamic.form == static.form
