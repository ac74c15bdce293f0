"""The discretised logistic mixture against the formulas of PixelCNN++, written the naive way in long double."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixeltune.config import Causality
from pixeltune.likelihoods import LogisticMixture
from pixeltune.likelihoods.logistic_mixture import MIN_LOG_SCALE


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def naive_mass(x: int, levels: int, mean: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Mass of each component in the bin of x, as a difference of two σ."""
    y, half_bin = np.longdouble(2 * x) / (levels - 1) - 1, np.longdouble(1) / (levels - 1)
    inv_scale = np.exp(-log_scale)
    upper = 1 if x == levels - 1 else sigmoid((y + half_bin - mean) * inv_scale)
    lower = 0 if x == 0 else sigmoid((y - half_bin - mean) * inv_scale)
    return upper - lower


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_univariate_agrees_with_the_naive_formula(levels: int) -> None:
    likelihood = LogisticMixture(channels=1, levels=levels, causality=Causality.SUBPIXEL, mixtures=5)
    theta = torch.randn(1, 1, 15, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits, means, log_scales = theta.flatten().numpy().astype(np.longdouble).reshape(3, 5)
    for x in range(levels):
        expected = np.log((softmax(logits) * naive_mass(x, levels, means, log_scales)).sum())
        nats = likelihood.log_prob(theta, torch.tensor([[[[x]]]]))
        assert nats.item() == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("x", [(0, 0, 0), (255, 255, 255), (120, 130, 140), (0, 200, 31)])
def test_joint_agrees_with_the_colour_coupling_of_the_paper(x: tuple[int, int, int]) -> None:
    """μ_g = m_g + α x_r, μ_b = m_b + β x_r + γ x_g, one indicator for the three (§2.2)."""
    likelihood = LogisticMixture(channels=3, levels=256, causality=Causality.PIXEL, mixtures=4)
    theta = torch.randn(1, 40, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks = theta.flatten().numpy().astype(np.longdouble).reshape(10, 4)
    logits, (m_r, m_g, m_b), (s_r, s_g, s_b) = blocks[0], blocks[1:4], blocks[4:7]
    alpha, beta, gamma = np.tanh(blocks[7:])
    r, g, _ = (2 * np.longdouble(level) / 255 - 1 for level in x)
    mass = (
        naive_mass(x[0], 256, m_r, s_r)
        * naive_mass(x[1], 256, m_g + alpha * r, s_g)
        * naive_mass(x[2], 256, m_b + beta * r + gamma * g, s_b)
    )
    nats = likelihood.log_prob(theta, torch.tensor(x).reshape(1, 3, 1, 1))
    assert nats.item() == pytest.approx(float(np.log((softmax(logits) * mass).sum())), rel=1e-9)


def test_log_scale_has_a_floor() -> None:
    likelihood = LogisticMixture(channels=1, levels=256, causality=Causality.SUBPIXEL, mixtures=1)
    x = torch.tensor([[[[100]]]])
    at_floor, below = (
        likelihood.log_prob(torch.tensor([0.0, 0.1, log_scale]).reshape(1, 1, 3, 1, 1), x)
        for log_scale in (MIN_LOG_SCALE, -100.0)
    )
    assert torch.equal(at_floor, below)


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 2.05, 2.1, 30.0])
def test_float32_keeps_its_digits_at_every_scale(log_scale: float) -> None:
    """Between 2.05 and 2.1 log(1 − e^−d) changes branch; at 30 a bin holds 1e-15 of the mass."""
    likelihood = LogisticMixture(channels=1, levels=256, causality=Causality.SUBPIXEL, mixtures=1)
    theta = torch.tensor([0.0, 0.1, log_scale], dtype=torch.float64).reshape(1, 1, 3, 1, 1).expand(256, 1, 3, 1, 1)
    x = torch.arange(256).reshape(256, 1, 1, 1)
    exact = likelihood.log_prob(theta, x)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(likelihood.log_prob(theta.float(), x).double(), exact, rtol=2e-5, atol=2e-5)


def test_a_colour_is_rounded_before_the_next_is_drawn() -> None:
    """With a tiny scale the second colour is tanh(1)·x̃ of the first one's level, not of its unrounded value."""
    likelihood = LogisticMixture(channels=2, levels=2, causality=Causality.PIXEL, mixtures=1)
    mean_of_first = 0.1
    theta = torch.tensor([0.0, mean_of_first, -0.5, -7.0, -7.0, 1.0]).reshape(1, 6, 1, 1)
    # tanh(1)·1 − 0.5 > 0 rounds to level 1; tanh(1)·0.1 − 0.5 < 0 would round to level 0.
    assert likelihood.sample(theta, torch.full((1, 3, 1, 1), 0.5)).flatten().tolist() == [1, 1]
