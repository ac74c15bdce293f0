"""PixelVAE: bounds that are bounds, in nats, with noise that only seed and index decide."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from pixeltune.audit import audit
from pixeltune.config import ImageSpec
from pixeltune.models import PixelVAE, build_model
from pixeltune.models.pixelvae import Encoder, Posterior, UpSampledLatent
from tests.support.tiny_models import all_images, one_latent, random_levels, tiny_config, tiny_model

every_way_in = pytest.mark.parametrize("latent_conditioning", ["bias", "map"])


def tiny_vae(**settings: Any) -> PixelVAE:
    """Its encoder and decoder heed each other: at initial weights a latent hardly matters."""
    model = tiny_model("pixelvae", **{"latent_dim": 2, "encoder_channels": 4} | settings)
    assert isinstance(model, PixelVAE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= 3.0 if ".V." in name else 1.5 if name.startswith(("encoder", "upsampling")) else 1.0
    return model


def exact_nats(model: PixelVAE, x: torch.Tensor, points: int = 801) -> torch.Tensor:
    """log ∫ p(x|z) p(z) dz of each image, by the trapezoidal rule over a single latent."""
    z_n1 = torch.linspace(-9, 9, points, dtype=torch.float64)[:, None]
    log_prior_n = Normal(0.0, 1.0).log_prob(z_n1[:, 0])
    step = math.log(18 / (points - 1))
    with torch.no_grad():
        log_joint = [model.log_prob_given(image.expand(points, -1, -1, -1), None, z_n1) for image in x]
    return torch.stack([(nats_n + log_prior_n).logsumexp(0) + step for nats_n in log_joint])


def random_posterior() -> tuple[Posterior, Independent]:
    generator = torch.Generator().manual_seed(0)
    mean_BD, log_variance_BD = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    return Posterior(mean_BD, log_variance_BD), Independent(Normal(mean_BD, (0.5 * log_variance_BD).exp()), 1)


def test_kl_is_that_of_two_gaussians() -> None:
    posterior, q = random_posterior()
    prior = Independent(Normal(torch.zeros(3, 5).double(), 1.0), 1)
    torch.testing.assert_close(posterior.kl().sum(1), kl_divergence(q, prior))


def test_the_prior_ratio_is_that_of_two_densities() -> None:
    posterior, q = random_posterior()
    noise_BD = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z_BD = posterior.draw(noise_BD)
    torch.testing.assert_close(
        posterior.log_prior_ratio(noise_BD), Normal(0.0, 1.0).log_prob(z_BD).sum(1) - q.log_prob(z_BD)
    )


@every_way_in
def test_bounds_lie_below_the_exact_likelihood_and_close_in_on_it(latent_conditioning: str) -> None:
    """All 2×2 images, one latent: the integral over z sums to one over images; ELBO ≤ IW(10) ≤ exact in expectation."""
    model = tiny_vae(shape=(1, 2, 2), latent_dim=1, latent_conditioning=latent_conditioning)
    with torch.no_grad():
        model.encoder.out.bias.copy_(torch.tensor([0.8, 0.4]))  # off the mark, but wide enough for steady weights
    x = all_images(model)
    exact_B = exact_nats(model, x)
    assert exact_B.exp().sum().item() == pytest.approx(1, abs=1e-9)
    draws = 400
    many, index_B = x.repeat_interleave(draws, 0), torch.arange(len(x) * draws)
    with torch.no_grad():
        elbo, ten, many_draws = (
            model.log_prob(many, None, index_B).reshape(-1, draws).mean(1),
            model.importance_bound(many, None, index_B, samples=10).reshape(-1, draws).mean(1),
            model.importance_bound(x, None, torch.arange(len(x)), samples=4000),
        )
    gap = (exact_B - elbo).mean().item()
    assert gap > 0.05
    assert (elbo < exact_B + 0.02).all()
    assert 0 < (exact_B - ten).mean().item() < 0.6 * gap
    torch.testing.assert_close(many_draws, exact_B, rtol=0, atol=0.05)


def test_one_importance_draw_is_the_elbo_in_expectation() -> None:
    model = tiny_vae(shape=(1, 3, 3))
    x = random_levels(model, 1).expand(4000, -1, -1, -1)
    with torch.no_grad():
        elbo, one = model.log_prob(x), model.importance_bound(x, samples=1)
    assert elbo.mean().item() == pytest.approx(one.mean().item(), abs=4 * (one - elbo).std().item() / 4000**0.5)


def test_the_bound_is_exact_where_posterior_is_prior_and_the_decoder_hears_nothing() -> None:
    model = tiny_vae(shape=(1, 3, 3))
    with torch.no_grad():
        model.encoder.out.weight.zero_()
        model.encoder.out.bias.zero_()
        for name, parameter in model.named_parameters():
            if ".V." in name:
                parameter.zero_()
    x = all_images(model)
    assert model.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert model.importance_bound(x, samples=3).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_noise_is_fixed_by_seed_and_index() -> None:
    model = tiny_vae()
    x, index_B = random_levels(model, 4), torch.tensor([7, 3, 11, 0])
    nats = model.log_prob(x, None, index_B)
    torch.testing.assert_close(model.log_prob(x.flip(0), None, index_B.flip(0)).flip(0), nats, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.log_prob(x[1:2], None, index_B[1:2]), nats[1:2], rtol=1e-12, atol=0)
    assert (model.log_prob(x) != nats).any(), "without an index the images are the first ones"
    torch.manual_seed(1)
    assert torch.equal(model.log_prob(x, None, index_B), nats)
    other = build_model(model.config.override({"seed": 4}), model.form).double().eval()
    other.load_state_dict(model.state_dict())
    assert (other.log_prob(x, None, index_B) != nats).all()


def test_the_kl_warms_up() -> None:
    model = tiny_vae(kl_warmup=10)
    x, index_B = random_levels(model, 3), torch.arange(3)
    bound, kl = -model.log_prob(x, None, index_B), model.posterior(x).kl().sum(1)
    assert kl.min() > 1e-3
    for step, weight in ((0, 0.0), (5, 0.5), (10, 1.0), (10**6, 1.0), (None, 1.0)):
        torch.testing.assert_close(model.loss(x, None, step, index_B), bound - (1 - weight) * kl)
    at_once = tiny_vae(kl_warmup=0)
    torch.testing.assert_close(at_once.loss(x, None, 0, index_B), -at_once.log_prob(x, None, index_B))


def test_free_nats_are_not_charged() -> None:
    """A latent below the allowance costs it flat, and the KL no longer moves it."""
    model = tiny_vae(free_nats=0.5)
    x, index_B = random_levels(model, 3), torch.arange(3)
    kl_BD = model.posterior(x).kl()
    flat = kl_BD.clamp(min=0.5).sum(1) - kl_BD.sum(1)
    torch.testing.assert_close(model.loss(x, None, None, index_B), flat - model.log_prob(x, None, index_B))
    generous = tiny_vae(free_nats=1e3)
    (gradient,) = torch.autograd.grad(
        generous.loss(x, None, None, index_B).sum() + generous.log_prob_given(x, None, _drawn(generous, x)).sum(),
        generous.encoder.out.weight,
    )
    assert gradient.abs().max() < 1e-12


def _drawn(model: PixelVAE, x: torch.Tensor) -> torch.Tensor:
    return model.posterior(x).draw(next(model._noise(x, torch.arange(len(x)))))


def test_the_encoder_is_the_papers_at_28x28() -> None:
    encoder = Encoder(ImageSpec(1, 28, 28, 2), features=32, latent_dim=16)
    convolutions = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    assert [(conv.out_channels, conv.stride[0]) for conv in convolutions] == [
        *((32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 2), (64, 1), (64, 1))
    ]
    assert encoder.out.in_features == 4 * 4 * 64
    assert encoder(torch.zeros(2, 1, 28, 28)).shape == (2, 32)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (7, 5), (1, 1), (3, 17), (32, 32)])
def test_maps_have_the_size_of_the_image(height: int, width: int) -> None:
    assert UpSampledLatent(3, 6, height, width)(torch.zeros(2, 3)).shape == (2, 6, height, width)
    assert Encoder(ImageSpec(2, height, width, 2), 4, 3)(torch.zeros(2, 2, height, width)).shape == (2, 6)


@every_way_in
@pytest.mark.parametrize("conditioning", ["none", "bias", "map"])
@pytest.mark.parametrize("split", [1, 2])
def test_goes_with_labels_and_tiles(latent_conditioning: str, conditioning: str, split: int) -> None:
    settings = {"split": split, "conditioning": conditioning, "latent_conditioning": latent_conditioning}
    model = tiny_vae(shape=(1, 2, 4), **settings)
    x = all_images(model)
    with torch.no_grad():
        nats = model.log_prob_given(x, torch.full((len(x),), 1), one_latent(model, len(x)))
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-11)
    model = tiny_vae(shape=(2, 4, 6), **settings).train()
    model.loss(random_levels(model, 6), torch.arange(6) % 3).mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@every_way_in
def test_a_latent_reaches_every_pixel(latent_conditioning: str) -> None:
    model = tiny_vae(shape=(1, 6, 6), latent_conditioning=latent_conditioning)
    x = model.scale(random_levels(model, 1))
    theta, other = (model.parameters_of(x, None, torch.full((1, 2), z, dtype=torch.float64)) for z in (0.0, 1.0))
    assert (theta != other).any(2).all()


@every_way_in
def test_the_audit_holds_the_latent_fixed(latent_conditioning: str) -> None:
    report = audit(tiny_vae(shape=(1, 8, 8), latent_conditioning=latent_conditioning, layers=4))
    assert (report.max_change, report.blind_spot) == (0.0, 0)


def test_the_latent_dimension_is_of_the_config() -> None:
    model = build_model(tiny_config("pixelvae", latent_dim=7), ImageSpec(1, 8, 8, 2))
    assert model.draw_latent(torch.Generator()).shape == (1, 7)
    assert tiny_model("gated").draw_latent(torch.Generator()).shape == (1, 0)
