"""Tiles that share the indicator of the mixture: one pixel of C·T colours, coupled within each tile."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pixeltune.config import Causality
from pixeltune.likelihoods import LogisticMixture
from tests.support.slow_nats import slow_nats

every_size = pytest.mark.parametrize(("C", "tiles", "K"), [(1, 4, 2), (1, 4, 17), (3, 4, 256), (2, 4, 2), (3, 16, 17)])


def coupled(C: int, tiles: int, K: int, mixtures: int = 4) -> LogisticMixture:
    return LogisticMixture(C * tiles, K, Causality.PIXEL, mixtures=mixtures, tiles=tiles)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def random_theta(likelihood: LogisticMixture, batch: int = 1, side: int = 1) -> torch.Tensor:
    return torch.randn(likelihood.theta_shape(batch, side, side), generator=generator(), dtype=torch.float64)


def random_levels(likelihood: LogisticMixture, batch: int = 1, side: int = 1) -> torch.Tensor:
    return torch.randint(likelihood.levels, (batch, likelihood.channels, side, side), generator=generator())


@every_size
def test_log_prob_agrees_with_a_slow_loop(C: int, tiles: int, K: int) -> None:
    likelihood = coupled(C, tiles, K)
    theta, x = random_theta(likelihood, 3), random_levels(likelihood, 3)
    for image in range(3):
        nats = slow_nats(likelihood, theta[image].flatten().tolist(), x[image].flatten().tolist())
        assert likelihood.log_prob(theta, x)[image].item() == pytest.approx(nats, rel=1e-9)


@every_size
def test_the_tables_are_the_factors_of_log_prob(C: int, tiles: int, K: int) -> None:
    likelihood = coupled(C, tiles, K)
    theta, x = random_theta(likelihood, 2, 2), random_levels(likelihood, 2, 2)
    tables = [likelihood.table(theta, x[:, :j]) for j in range(C * tiles)]
    for table in tables:
        torch.testing.assert_close(table.sum(1), torch.ones(2, 2, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    nats = sum(table.gather(1, x[:, j : j + 1]).log().sum((1, 2, 3)) for j, table in enumerate(tables))
    torch.testing.assert_close(likelihood.log_prob(theta, x), nats)


def test_all_pixels_of_all_tiles_sum_to_one() -> None:
    likelihood = coupled(2, 4, 2)
    x = torch.cartesian_prod(*[torch.arange(2)] * 8).reshape(-1, 8, 1, 1)
    theta = random_theta(likelihood).expand(len(x), -1, -1, -1)
    assert likelihood.log_prob(theta, x).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_one_tile_is_the_ordinary_mixture() -> None:
    one, ordinary = coupled(3, 1, 17), LogisticMixture(3, 17, Causality.PIXEL, mixtures=4)
    theta, x = random_theta(one, 2, 3), random_levels(one, 2, 3)
    assert torch.equal(one.log_prob(theta, x), ordinary.log_prob(theta, x))


def test_one_component_leaves_the_tiles_independent() -> None:
    likelihood, alone = coupled(2, 4, 17, mixtures=1), LogisticMixture(2, 17, Causality.PIXEL, mixtures=1)
    theta, x = random_theta(likelihood), random_levels(likelihood)
    logit, means, log_scales, pairs = theta.split_with_sizes([1, 8, 8, 4], dim=1)
    tiles = [
        torch.cat([logit, means[:, 2 * t : 2 * t + 2], log_scales[:, 2 * t : 2 * t + 2], pairs[:, t : t + 1]], dim=1)
        for t in range(4)
    ]
    nats = sum(alone.log_prob(tile, x[:, 2 * t : 2 * t + 2]) for t, tile in enumerate(tiles))
    torch.testing.assert_close(likelihood.log_prob(theta, x), nats)


def test_samples_have_the_joint_distribution() -> None:
    likelihood, draws = coupled(1, 4, 2), 20_000
    theta = 2 * random_theta(likelihood)
    x = torch.cartesian_prod(*[torch.arange(2)] * 4).reshape(-1, 4, 1, 1)
    expected = draws * likelihood.log_prob(theta.expand(len(x), -1, -1, -1), x).exp()
    noise = likelihood.noise(draws, 1, 1, generator(), torch.float64)
    drawn = likelihood.sample(theta.expand(draws, -1, -1, -1), noise).flatten(1)
    seen = (drawn * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    assert stats.chisquare(seen.numpy(), (expected * draws / expected.sum()).numpy()).pvalue > 1e-3


def test_an_indicator_ties_the_tiles_together() -> None:
    """Two narrow components, at the two ends of the line: all tiles are dark, or all are light."""
    likelihood = coupled(1, 4, 17, mixtures=2)
    theta = torch.cat([torch.zeros(2), torch.tensor([-0.9, 0.9]).repeat(4), torch.full((8,), -5.0)])
    noise = likelihood.noise(200, 1, 1, generator())
    x = likelihood.sample(theta.reshape(1, -1, 1, 1).expand(200, -1, -1, -1), noise).flatten(1)
    is_light = x > 8
    assert torch.equal(is_light, is_light[:, :1].expand(-1, 4))
    assert 60 < is_light[:, 0].sum() < 140
