"""Pictures of what a model draws: what is in which place, and what the caption says of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixeltune.data import ImageSet
from pixeltune.errors import ConfigError
from pixeltune.sampling import complete, completions, gallery, sample, upper_half
from tests.support.tiny_models import sharp_model


def examples(count: int = 14, levels: int = 17, channels: int = 1) -> ImageSet:
    pixels = np.random.default_rng(0).integers(levels, size=(count, channels, 4, 4), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 3)


def test_a_gallery_is_samples_above_completions_a_column_an_image() -> None:
    model, given = sharp_model("gated", shape=(1, 4, 4), levels=17), examples()
    picture = gallery(model, given, seed=3)
    assert (len(picture.images_NCHW), picture.columns, picture.gap_after) == (72 + 24 + 72, 12, 6)
    assert torch.equal(picture.images_NCHW[:72], sample(model, 72, seed=3))
    below = picture.images_NCHW[72:].unflatten(0, (8, 12)).numpy()
    for row in below:
        assert np.array_equal(row[:, :, :2], given.pixels_NCHW[:12, :, :2])
    assert np.array_equal(below[0], given.pixels_NCHW[:12]), "the original"
    assert (below[2] != below[3]).any()
    assert picture.hidden_NHW is not None
    hidden = picture.hidden_NHW[72:].unflatten(0, (8, 12))
    assert torch.equal(hidden[1], ~upper_half(model).expand(12, -1, -1)), "what is given"
    assert hidden.sum() == hidden[1].sum()
    assert not picture.hidden_NHW[:72].any()
    assert "the original, the upper half, which is given, 6 completions" in picture.caption
    assert "no completions" not in picture.caption


def test_a_conditional_gallery_draws_classes_in_turn_and_completes_with_the_labels() -> None:
    model, given = sharp_model("gated", shape=(1, 4, 4), levels=17, conditioning="bias").double(), examples()
    picture = gallery(model, given)
    assert torch.equal(picture.images_NCHW[:72], sample(model, 72, labels=[index % 3 for index in range(72)]))
    index = np.tile(np.arange(12), 6)
    labels = torch.from_numpy(given.labels_N[index])
    expected = complete(model, given.pixels_NCHW[index], upper_half(model), labels=labels)
    assert torch.equal(picture.images_NCHW[96:], expected)


@pytest.mark.parametrize(
    ("family", "split", "count", "words"),
    [
        ("gated", 1, 11, "no completions: there are fewer than 12 examples"),
        ("gated", 2, 14, "no completions: what is given must be all that the model draws in its first network calls"),
        ("pixelvae", 1, 14, "no completions: a completion must be of a model without a latent"),
    ],
)
def test_a_gallery_without_exact_completions_says_why(family: str, split: int, count: int, words: str) -> None:
    model = sharp_model(family, shape=(1, 4, 4), levels=17, split=split)
    picture = gallery(model, examples(count))
    assert len(picture.images_NCHW) == 72
    assert words in picture.caption
    assert len(gallery(model, None).images_NCHW) == 72


def test_completions_are_rows_of_an_image_each() -> None:
    model, given = sharp_model("gated", shape=(3, 4, 4), levels=17, conditioning="bias"), examples(2, channels=3)
    picture = completions(model, given, upper_half(model), draws=3, seed=1)
    rows = picture.images_NCHW.unflatten(0, (2, 5))
    assert picture.columns == 5
    for column in (0, 1):
        assert np.array_equal(rows[:, column], given.pixels_NCHW)
    again = complete(model, given.pixels_NCHW.repeat(3, 0), upper_half(model), labels=[0, 0, 0, 1, 1, 1], seed=1)
    assert torch.equal(rows[:, 2:].flatten(0, 1), again)
    assert picture.hidden_NHW is not None
    hidden = picture.hidden_NHW.unflatten(0, (2, 5))
    assert torch.equal(hidden[:, 1], ~upper_half(model).expand(2, -1, -1))
    assert hidden.sum() == hidden[:, 1].sum()


def test_clamped_completions_are_named_for_it() -> None:
    model = sharp_model("gated", shape=(1, 4, 4), levels=17)
    left = upper_half(model).T
    with pytest.raises(ConfigError, match="--clamp"):
        completions(model, examples(2), left)
    assert completions(model, examples(2), left, clamp=True).caption == (
        "not a conditional sample: the original, what is given, 6 completions"
    )
    assert "not a conditional" not in completions(model, examples(2), upper_half(model), clamp=True).caption
