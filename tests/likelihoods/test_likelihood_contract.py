"""What every likelihood promises, in both forms, for any number of colours and levels."""

from __future__ import annotations

import itertools

import pytest
import torch

from pixeltune import config
from pixeltune.config import Causality, ImageSpec
from pixeltune.errors import ConfigError
from pixeltune.likelihoods import LIKELIHOODS, Likelihood, build_likelihood
from pixeltune.likelihoods.base import pair_index
from tests.support.chi_square import chi_square_p
from tests.support.slow_nats import slow_nats

CASES = [
    (name, causality, C, K)
    for name, causality, C, K in itertools.product(LIKELIHOODS, Causality, (1, 2, 3), (2, 17, 256))
    if name != "bernoulli" or K == 2
]
every_case = pytest.mark.parametrize(("name", "causality", "C", "K"), CASES)
every_small_case = pytest.mark.parametrize(
    ("name", "causality", "C", "K"), [case for case in CASES if case[3] ** case[2] <= 5000]
)


def build(name: str, causality: Causality, C: int, K: int) -> Likelihood:
    form = ImageSpec(channels=C, height=4, width=4, levels=K)
    return build_likelihood(config.LIKELIHOODS[name](name=name), form=form, causality=causality)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def random_theta(likelihood: Likelihood, batch: int, side: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(likelihood.theta_shape(batch, side, side), generator=generator(), dtype=dtype)


def random_levels(likelihood: Likelihood, batch: int, side: int) -> torch.Tensor:
    return torch.randint(likelihood.levels, (batch, likelihood.channels, side, side), generator=generator())


def all_pixels(likelihood: Likelihood) -> torch.Tensor:
    """Every value of one pixel, (K^C, C, 1, 1)."""
    levels = [torch.arange(likelihood.levels)] * likelihood.channels
    return torch.cartesian_prod(*levels).reshape(-1, likelihood.channels, 1, 1)


def test_every_configured_likelihood_exists() -> None:
    assert set(LIKELIHOODS) == set(config.LIKELIHOODS)


def test_pairs_of_colours_follow_one_another_without_a_gap() -> None:
    """Include four colours, which no other case here has."""
    assert [pair_index(colour, earlier) for colour in range(5) for earlier in range(colour)] == list(range(10))


def test_bernoulli_refuses_more_than_two_levels() -> None:
    with pytest.raises(ConfigError, match="2 levels, but the data has 17"):
        build("bernoulli", Causality.PIXEL, 1, 17)


@every_case
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_table_sums_to_one(name: str, causality: Causality, C: int, K: int, spread: float) -> None:
    likelihood = build(name, causality, C, K)
    theta, x = spread * random_theta(likelihood, 2, 2), random_levels(likelihood, 2, 2)
    for j in range(C):
        table = likelihood.table(theta, x[:, :j])
        assert table.shape == (2, K, 2, 2)
        torch.testing.assert_close(table.sum(1), torch.ones(2, 2, 2, dtype=torch.float64), rtol=0, atol=1e-12)


@every_case
def test_log_prob_is_the_sum_of_the_tables_logs(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood = build(name, causality, C, K)
    theta, x = random_theta(likelihood, 3, 2), random_levels(likelihood, 3, 2)
    probs = [likelihood.table(theta, x[:, :j]).gather(1, x[:, j : j + 1]) for j in range(C)]
    torch.testing.assert_close(likelihood.log_prob(theta, x), torch.cat(probs, 1).log().sum((1, 2, 3)))


@every_case
def test_log_prob_agrees_with_a_slow_loop(name: str, causality: Causality, C: int, K: int) -> None:
    """Over plain numbers: every pixel of every image, and every colour by itself where it has its own parameters."""
    likelihood = build(name, causality, C, K)
    theta, x = random_theta(likelihood, 2, 2), random_levels(likelihood, 2, 2)
    nats = [0.0, 0.0]
    for image, row, col in itertools.product(range(2), repeat=3):
        levels, here = x[image, :, row, col].tolist(), theta[image, ..., row, col].tolist()
        parts = [(here, levels)] if likelihood.is_joint else [(here[j], [levels[j]]) for j in range(C)]
        nats[image] += sum(slow_nats(likelihood, *part) for part in parts)
    assert likelihood.log_prob(theta, x).tolist() == pytest.approx(nats, rel=1e-9)


@every_small_case
def test_all_pixels_sum_to_one(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood = build(name, causality, C, K)
    x = all_pixels(likelihood)
    theta = random_theta(likelihood, 1, 1).expand(len(x), *likelihood.theta_shape(1, 1, 1)[1:])
    assert likelihood.log_prob(theta, x).exp().sum().item() == pytest.approx(1, abs=1e-12)


@every_case
def test_bfloat16_parameters_are_upcast(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood = build(name, causality, C, K)
    theta, x = random_theta(likelihood, 2, 2, torch.bfloat16), random_levels(likelihood, 2, 2)
    nats = likelihood.log_prob(theta, x)
    assert nats.dtype == torch.float32
    assert torch.equal(nats, likelihood.log_prob(theta.float(), x))
    torch.testing.assert_close(nats.double(), likelihood.log_prob(theta.double(), x), rtol=1e-5, atol=1e-4)


@every_case
@pytest.mark.parametrize("level", ["lowest", "highest"])
@pytest.mark.parametrize("value", [-1e3, -50.0, 0.0, 50.0, 1e3])
def test_finite_at_extremes(name: str, causality: Causality, C: int, K: int, level: str, value: float) -> None:
    likelihood = build(name, causality, C, K)
    theta = torch.full(likelihood.theta_shape(1, 2, 2), value, requires_grad=True)
    x = torch.full((1, C, 2, 2), 0 if level == "lowest" else K - 1)
    nats = likelihood.log_prob(theta, x)
    (gradient,) = torch.autograd.grad(nats.sum(), theta)
    assert nats.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("name", "causality", "C", "K"), [case for case in CASES if case[3] == 2 or case[2] == 2])
def test_gradient_is_that_of_finite_differences(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood = build(name, causality, C, min(K, 5))
    theta, x = random_theta(likelihood, 1, 1), random_levels(likelihood, 1, 1)
    assert torch.autograd.gradcheck(lambda theta: likelihood.log_prob(theta, x), theta.requires_grad_())


@every_case
def test_noise_fits_and_lies_inside_the_open_interval(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood = build(name, causality, C, K)
    noise = likelihood.noise(3, 2, 4, generator())
    assert noise.shape == (3, likelihood.num_noise, 2, 4)
    assert torch.equal(noise, likelihood.noise(3, 2, 4, generator()))
    assert noise.min() > 0
    assert noise.max() < 1


def test_noise_never_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert (build("categorical", Causality.PIXEL, 1, 2).noise(1, 1, 1, generator()) > 0).all()


@every_case
@pytest.mark.parametrize("edge", [2**-24, 1 - 2**-24])
def test_samples_at_the_ends_of_the_noise_are_levels(
    name: str, causality: Causality, C: int, K: int, edge: float
) -> None:
    likelihood = build(name, causality, C, K)
    noise = torch.full((2, likelihood.num_noise, 2, 2), edge)
    x = likelihood.sample(random_theta(likelihood, 2, 2, torch.float32), noise)
    assert x.shape == (2, C, 2, 2)
    assert x.dtype == torch.int64
    assert x.min() >= 0
    assert x.max() < K


@every_small_case
def test_samples_are_distributed_as_log_prob_says(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood, draws = build(name, causality, C, K), 20_000
    theta = random_theta(likelihood, 1, 1)
    shape = likelihood.theta_shape(draws, 1, 1)
    noise = likelihood.noise(draws, 1, 1, generator(), torch.float64)
    x = likelihood.sample(theta.expand(shape), noise)
    pixels = all_pixels(likelihood)
    expected = draws * likelihood.log_prob(theta.expand(len(pixels), *shape[1:]), pixels).exp()
    index = (x[:, :, 0, 0] * K ** torch.arange(C - 1, -1, -1)).sum(1)
    seen = index.bincount(minlength=K**C)
    assert chi_square_p(seen, expected) > 1e-3


@every_small_case
def test_a_temperature_is_a_power_of_each_factor(name: str, causality: Causality, C: int, K: int) -> None:
    likelihood, draws, temperature = build(name, causality, C, K), 20_000 if K < 256 else 5_000, 0.5
    theta = random_theta(likelihood, 1, 1)
    shape = likelihood.theta_shape(draws, 1, 1)
    noise = likelihood.noise(draws, 1, 1, generator(), torch.float64)
    x = likelihood.sample(theta.expand(shape), noise, temperature)
    pixels = all_pixels(likelihood)
    each = theta.expand(len(pixels), *shape[1:])
    expected = torch.full((len(pixels),), float(draws), dtype=torch.float64)
    for j in range(C):
        powers = likelihood.table(each, pixels[:, :j])[:, :, 0, 0] ** (1 / temperature)
        expected *= (powers / powers.sum(1, keepdim=True)).gather(1, pixels[:, j, 0])[:, 0]
    seen = (x[:, :, 0, 0] * K ** torch.arange(C - 1, -1, -1)).sum(1).bincount(minlength=K**C)
    assert chi_square_p(seen, expected) > 1e-3


@every_case
@pytest.mark.parametrize("temperature", [1e-6, 1e-300])
def test_near_zero_temperature_leaves_the_likeliest_level(
    name: str, causality: Causality, C: int, K: int, temperature: float
) -> None:
    likelihood = build(name, causality, C, K)
    theta, noise = random_theta(likelihood, 3, 2), likelihood.noise(3, 2, 2, generator(), torch.float64)
    x = likelihood.sample(theta, noise, temperature=temperature)
    for j in range(C):
        assert torch.equal(x[:, j], likelihood.table(theta, x[:, :j]).argmax(1))
