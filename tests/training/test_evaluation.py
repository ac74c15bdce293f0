"""Evaluation is exact: every image once, whatever the batch size and the number of workers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pixeltune.config import ImageSpec
from pixeltune.data import ImageSet
from pixeltune.errors import ConfigError, DataError
from pixeltune.models import PixelVAE, build_model
from pixeltune.models.exact import exact_float32
from pixeltune.training.evaluation import Evaluation, evaluate
from pixeltune.training.workers import Workers
from tests.support.tiny_trainings import tiny

FORM = ImageSpec(channels=1, height=8, width=8, levels=17)


@pytest.fixture
def images() -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(generator.integers(0, 17, (37, 1, 8, 8), dtype=np.uint8), None)


class Alone(Workers):
    """One of several workers, whose sum the test makes."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


def test_equals_one_image_at_a_time(images: ImageSet) -> None:
    model = build_model(tiny(), FORM).eval()
    result = evaluate(model, images, batch_size=8)
    with torch.no_grad():
        alone = [-float(model.log_prob(torch.from_numpy(image[None].copy()))) for image in images.pixels_NCHW]
    assert result.nats_N == pytest.approx(alone, rel=1e-6)
    assert result.nats == pytest.approx(np.mean(alone), rel=1e-6)
    assert result.bits_per_dim == pytest.approx(np.mean(alone) / (64 * math.log(2)), rel=1e-6)
    assert result.standard_error == pytest.approx(np.std(alone, ddof=1) / 37**0.5 / (64 * math.log(2)), rel=1e-4)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_number_of_workers_changes_nothing(images: ImageSet, world: int) -> None:
    model = build_model(tiny(), FORM)
    one = evaluate(model, images, batch_size=5)
    parts = [evaluate(model, images, batch_size=5, workers=Alone(rank, world)).nats_N for rank in range(world)]
    assert np.array_equal(sum(parts), one.nats_N)
    assert all(np.count_nonzero(part) for part in parts)
    assert sum(np.count_nonzero(part) for part in parts) == 37


def test_batch_size_changes_only_rounding(images: ImageSet) -> None:
    model = build_model(tiny(), FORM)
    values = [evaluate(model, images, batch_size=size).nats for size in (1, 7, 37, 100)]
    assert max(values) - min(values) < 1e-6 * max(values)


def test_evaluates_in_eval_mode_and_returns_to_the_mode_from_before(images: ImageSet) -> None:
    model = build_model(tiny(model__dropout=0.5), FORM).train()
    assert evaluate(model, images).nats == evaluate(model, images).nats
    assert model.training


def test_number_of_record_is_float32_whatever_the_caller_set(images: ImageSet) -> None:
    model = build_model(tiny(), FORM)
    exact = evaluate(model, images).nats
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert evaluate(model, images).nats == exact
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_exact_float32_gives_back_the_settings_after_an_error() -> None:
    product = torch.backends.mkldnn.matmul
    before = product.fp32_precision
    product.fp32_precision = "bf16"
    try:
        with pytest.raises(ZeroDivisionError), exact_float32():
            print(product.fp32_precision, 1 / 0)
        assert product.fp32_precision == "bf16"
    finally:
        product.fp32_precision = before


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.full((3, 1, 8, 8), 17, np.uint8), "levels 0 to 16, but got 17 to 17"),
        (np.zeros((3, 1, 4, 4), np.uint8), r"of shape \(B, 1, 8, 8\), but got shape"),
        (np.zeros((3, 8, 8), np.uint8), r"of shape \(B, 1, 8, 8\), but got shape"),
        (np.random.default_rng(0).random((3, 1, 8, 8)), r"but got float64 .* after \(16 \* x\)"),
        (np.ones((3, 1, 8, 8), bool), "but got bool"),
        (np.full((3, 1, 8, 8), -1, np.int16), "but got -1 to -1"),
    ],
)
def test_refuses_what_the_model_does_not_describe(pixels: np.ndarray, says: str) -> None:
    model = build_model(tiny(), FORM).train()
    with pytest.raises(DataError, match=says) as caught:
        evaluate(model, ImageSet(pixels, None))
    assert "\n" not in str(caught.value)
    assert model.training, "a refusal changes nothing"


@pytest.mark.parametrize("count", [36, 38, 0])
def test_refuses_labels_that_are_not_one_an_image(images: ImageSet, count: int) -> None:
    with pytest.raises(DataError, match=f"but got {count} labels of 37 images"):
        evaluate(build_model(tiny(), FORM), ImageSet(images.pixels_NCHW, np.zeros(count, np.int64)))


def test_mean_is_a_sum_divided_once() -> None:
    nats = np.array([1e16, 1.0, -1e16, 3.0])
    assert Evaluation(nats, FORM).nats == 1.0


# --- Bounds -----------------------------------------------------------------------------------------------------------


def tiny_vae() -> PixelVAE:
    """Untrained, but its decoder hears the latent, and its encoder is off the mark."""
    model = build_model(tiny(model__family="pixelvae", model__latent_dim=3, model__encoder_channels=4), FORM)
    assert isinstance(model, PixelVAE)
    with torch.no_grad():
        model.encoder.out.bias[:3] += 1
        for name, parameter in model.named_parameters():
            parameter *= 10.0 if ".V." in name else 1.0
    return model


@pytest.mark.parametrize("importance", [None, 3])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_number_of_workers_changes_no_bound(images: ImageSet, world: int, importance: int | None) -> None:
    model = tiny_vae()
    one = evaluate(model, images, batch_size=5, importance=importance)
    parts = [
        evaluate(model, images, batch_size=5, workers=Alone(rank, world), importance=importance).nats_N
        for rank in range(world)
    ]
    assert np.array_equal(sum(parts), one.nats_N)


@pytest.mark.parametrize("importance", [None, 3])
def test_noise_of_a_bound_depends_on_the_image_and_not_on_its_batch(images: ImageSet, importance: int | None) -> None:
    model = tiny_vae()
    whole, *others = (
        evaluate(model, images, batch_size=size, importance=importance).nats_N for size in (100, 1, 7, 37)
    )
    for nats_N in others:
        assert nats_N == pytest.approx(whole, rel=1e-6)
    again = ImageSet(np.repeat(images.pixels_NCHW[:1], 5, axis=0), None)
    assert len(set(evaluate(model, again, importance=importance).nats_N)) == 5, "each place has its own noise"


def test_more_draws_tighten_a_bound(images: ImageSet) -> None:
    """−log p is at most the nats of 50 draws, and those are below the ELBO's, in expectation."""
    model, many = tiny_vae(), ImageSet(np.tile(images.pixels_NCHW, (3, 1, 1, 1)), None)
    elbo, one, fifty = (evaluate(model, many, importance=draws).nats_N for draws in (None, 1, 50))
    for loose in (elbo, one):
        gap = loose - fifty
        assert gap.mean() > 4 * gap.std(ddof=1) / len(gap) ** 0.5


def test_an_importance_weighted_bound_equals_one_image_at_a_time(images: ImageSet) -> None:
    model = tiny_vae().eval()
    result = evaluate(model, images, batch_size=8, importance=4)
    x = torch.from_numpy(images.pixels_NCHW.copy())
    with torch.no_grad():
        alone = [float(model.importance_bound(x[i : i + 1], None, torch.tensor([i]), samples=4)) for i in range(37)]
    assert result.nats_N == pytest.approx([-nats for nats in alone], rel=1e-6)


def test_an_exact_model_has_no_importance_weighted_bound(images: ImageSet) -> None:
    with pytest.raises(ConfigError, match="but family gated has none: its likelihood is exact") as caught:
        evaluate(build_model(tiny(), FORM), images, importance=5)
    assert "\n" not in str(caught.value)
