"""Evaluation is exact: every image once, whatever the batch size and the number of workers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pixeltune.config import ImageForm
from pixeltune.data import ImageSet
from pixeltune.errors import DataError
from pixeltune.models import build_model
from pixeltune.models.exact import exact_float32
from pixeltune.training.evaluate import Evaluation, evaluate
from pixeltune.training.workers import Workers

from .conftest import tiny

FORM = ImageForm(channels=1, height=8, width=8, levels=17)


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


def test_refuses_what_the_model_does_not_describe(images: ImageSet) -> None:
    model = build_model(tiny(), ImageForm(channels=1, height=8, width=8, levels=5))
    with pytest.raises(DataError, match="below 5"):
        evaluate(model, images)
    with pytest.raises(DataError, match="1×8×8"):
        evaluate(model, ImageSet(np.zeros((3, 1, 4, 4), np.uint8), None))


def test_mean_is_a_sum_divided_once() -> None:
    nats = np.array([1e16, 1.0, -1e16, 3.0])
    assert Evaluation(nats, FORM).nats == 1.0
