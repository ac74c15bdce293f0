"""Masks of bits: the right rate, each feature on its own, the same mask for the gradient, and from the seed alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pixeltune.models.dropout import Dropout, keep_bits

RATES = (0.5, 0.25, 0.3, 0.9, 1e-3)
SHAPE = (16, 24, 32, 32)


def drop(x: Tensor, rate: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    dropped: Tensor = Dropout(rate).train()(x)
    return dropped


@pytest.mark.parametrize("rate", RATES)
def test_features_are_dropped_at_the_rate_and_the_rest_scaled(rate: float) -> None:
    y = drop(torch.ones(SHAPE, dtype=torch.float64), rate)
    zero = (y == 0).double().mean().item()
    assert zero == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / y.numel()))
    kept = y[y != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - rate), rel=2**-17 / (1 - rate))


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_features_are_dropped_on_their_own(rate: float) -> None:
    """Pairs at any distance within a word, and across rows and images, are dropped together as if by chance."""
    kept = (drop(torch.ones(SHAPE), rate) != 0).double().permute(0, 2, 3, 1).flatten()
    variance = rate * (1 - rate)
    for distance in (*range(1, 65), 24 * 32, 24 * 32 * 32):
        pairs = (kept[distance:] - (1 - rate)) * (kept[:-distance] - (1 - rate))
        assert abs(pairs.mean().item()) < 5 * variance / math.sqrt(len(pairs)), distance


@pytest.mark.parametrize("rate", RATES)
def test_every_bit_of_a_word_has_the_rate(rate: float) -> None:
    words = torch.manual_seed(3) and keep_bits(64 * 20_000, rate)
    for place in range(64):
        share = (words >> place & 1).double().mean().item()
        assert share == pytest.approx(1 - rate, abs=5 * math.sqrt(rate * (1 - rate) / len(words)))


def test_the_gradient_is_that_of_the_same_mask() -> None:
    x = torch.randn(3, 5, 7, 4, requires_grad=True)
    y = drop(x, 0.3)
    grad = torch.randn_like(y)
    y.backward(grad)
    factor = torch.where(y == 0, 0.0, y / x).detach()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, grad * factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layout_and_dtype_choose_no_other_mask(dtype: torch.dtype) -> None:
    x = torch.ones(SHAPE)
    mask = drop(x, 0.5) != 0
    assert torch.equal(drop(x.to(dtype), 0.5) != 0, mask)
    for other in (x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        y = drop(other.to(dtype), 0.5)
        assert y.dtype == dtype
        assert y.stride() == other.stride()
        assert torch.equal(y != 0, mask)


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5), (1, 3, 1, 1)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    y = drop(torch.ones(shape), 0.5)
    assert y.shape == shape
    assert set(y.unique().tolist()) <= {0.0, 2.0}


def test_the_seed_decides() -> None:
    x = torch.ones(SHAPE)
    assert torch.equal(drop(x, 0.5, seed=1), drop(x, 0.5, seed=1))
    assert not torch.equal(drop(x, 0.5, seed=1), drop(x, 0.5, seed=2))


def test_a_mask_is_kept_as_bits_for_the_gradient() -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        drop(torch.ones(SHAPE, requires_grad=True), 0.5)
    assert [tensor.nbytes for tensor in kept] == [math.prod(SHAPE) // 8]


def test_evaluation_and_a_rate_of_zero_change_nothing() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
