"""Samples are drawn from the model's own distribution, as a fixed function of weights, seed and index."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from pixeltune.errors import ConfigError
from pixeltune.models import NO_LABEL, DensityModel, eval_mode
from pixeltune.sampling import METHODS, SampleRequest, sample
from tests.support.chi_square import chi_square_p
from tests.support.model_kinds import COUPLING_FAMILIES, every_kind, every_kind_and, every_network
from tests.support.tiny_models import sharp_model


def drawn_given(
    model: DensityModel, draws: int, method: str, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and the latent that all of them were given: then p(x | z) is exact, whatever the family."""
    generator = torch.Generator().manual_seed(1)
    z_BD = model.draw_latent(generator).expand(draws, -1)
    noise = model.likelihood.noise(draws, *model.noise(generator).shape[-2:], generator)
    with eval_mode(model), torch.no_grad():
        s = model.features(torch.zeros(draws, *model.form.shape), z_BD=z_BD)
        return METHODS[method](model, SampleRequest(noise, s, temperature)), z_BD


def drawn_again(model: DensityModel, x: torch.Tensor, seed: int, label: torch.Tensor | None = None) -> torch.Tensor:
    """What the noise of `sample` draws from θ of its own images."""
    generator = torch.Generator().manual_seed(seed)
    latents, noise = zip(*[(model.draw_latent(generator), model.noise(generator)) for _ in x], strict=True)
    theta = model.parameters_of(model.scale(x), label, torch.cat(latents).to(next(model.parameters())))
    return model.draw(theta, torch.cat(noise)).to(torch.uint8)


@every_kind_and(method=METHODS, shape=[(1, 2, 2), (2, 2, 1)])
def test_frequencies_are_the_models_probabilities(
    family: str, likelihood: str, colour_order: str, method: str, shape: tuple[int, int, int]
) -> None:
    model, draws = sharp_model(family, likelihood, shape=shape, colour_order=colour_order), 4000
    images = torch.cartesian_prod(*[torch.arange(2)] * 4)
    drawn, z_BD = drawn_given(model, draws, method)
    with torch.no_grad():
        expected = draws * model.log_prob_given(images.reshape(-1, *shape), z_BD=z_BD[:16]).exp().double()
    seen = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    assert chi_square_p(seen, expected * (draws / expected.sum())) > 1e-3


@every_kind_and(method=METHODS)
def test_a_sample_is_the_fixed_point_of_its_noise(family: str, likelihood: str, colour_order: str, method: str) -> None:
    """θ of the finished image draws the same image again: each sub-pixel was drawn from its final θ."""
    levels = 2 if likelihood == "bernoulli" else 17
    model = sharp_model(family, likelihood, levels=levels, colour_order=colour_order).double()
    x = sample(model, 3, seed=5, method=method)
    assert torch.equal(drawn_again(model, x, seed=5), x)
    assert x.float().std() > 0


@every_kind_and(method=METHODS)
def test_split_samples_are_of_the_models_distribution(
    family: str, likelihood: str, colour_order: str, method: str
) -> None:
    """Two rows of two tiles of one pixel would be independent: 2×4 leaves two offsets."""
    model, draws = sharp_model(family, likelihood, shape=(1, 2, 4), colour_order=colour_order, split=2), 8000
    images = torch.cartesian_prod(*[torch.arange(2)] * 8)
    drawn, z_BD = drawn_given(model, draws, method)
    with torch.no_grad():
        expected = draws * model.log_prob_given(images.reshape(-1, 1, 2, 4), z_BD=z_BD[:256]).exp().double()
    seen = (drawn.flatten(1) * 2 ** torch.arange(7, -1, -1)).sum(1).bincount(minlength=256)
    assert chi_square_p(seen, expected * (draws / expected.sum())) > 1e-3


@every_kind_and(method=METHODS)
def test_a_split_sample_is_the_fixed_point_of_its_noise(
    family: str, likelihood: str, colour_order: str, method: str
) -> None:
    levels = 2 if likelihood == "bernoulli" else 17
    model = sharp_model(family, likelihood, shape=(3, 4, 6), levels=levels, colour_order=colour_order, split=2).double()
    x = sample(model, 2, seed=5, method=method)
    assert torch.equal(drawn_again(model, x, seed=5), x)


@pytest.mark.parametrize("family", COUPLING_FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_coupled_tiles_are_drawn_from_their_joint_distribution(family: str, method: str) -> None:
    model = sharp_model(
        family,
        "logistic_mixture",
        shape=(1, 2, 4),
        colour_order="likelihood",
        split=2,
        split_coupling="mixture",
    )
    draws, images = 8000, torch.cartesian_prod(*[torch.arange(2)] * 8)
    drawn, z_BD = drawn_given(model, draws, method)
    with torch.no_grad():
        expected = draws * model.log_prob_given(images.reshape(-1, 1, 2, 4), z_BD=z_BD[:256]).exp().double()
    seen = (drawn.flatten(1) * 2 ** torch.arange(7, -1, -1)).sum(1).bincount(minlength=256)
    assert chi_square_p(seen, expected * (draws / expected.sum())) > 1e-3
    x = sample(model, 3, seed=5, method=method)
    assert torch.equal(drawn_again(model, x, seed=5), x)


def tempered(probs_N: torch.Tensor, sub_pixels: int, temperature: float) -> torch.Tensor:
    """Of all images of two levels, the first sub-pixel's the highest bit: each factor of the chain rule to 1/T."""
    result = torch.ones_like(probs_N)
    for index in range(sub_pixels):
        before_PL = probs_N.reshape(2**index, 2, -1).sum(2)
        factor_PL = (before_PL / before_PL.sum(1, keepdim=True)) ** (1 / temperature)
        factor_PL = factor_PL / factor_PL.sum(1, keepdim=True)
        result *= factor_PL.flatten().repeat_interleave(len(probs_N) // factor_PL.numel())
    return result


@every_kind
def test_a_temperature_is_a_power_of_each_factor(family: str, likelihood: str, colour_order: str) -> None:
    """Images of two pixels and two colours, all of whose probabilities are known."""
    model, draws = sharp_model(family, likelihood, shape=(2, 1, 2), colour_order=colour_order), 4000
    images_16P2 = torch.cartesian_prod(*[torch.arange(2)] * 4).reshape(16, 2, 2)  # pixel, colour
    drawn, z_BD = drawn_given(model, draws, "cached", temperature=0.4)
    with torch.no_grad():
        given = model.log_prob_given(images_16P2.transpose(1, 2)[:, :, None], z_BD=z_BD[:16]).exp().double()
    seen = (drawn[:, :, 0].transpose(1, 2).flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    assert chi_square_p(seen, draws * tempered(given / given.sum(), 4, 0.4)) > 1e-3
    assert chi_square_p(seen, draws * given / given.sum()) < 1e-3


@every_kind
def test_methods_agree_at_a_temperature(family: str, likelihood: str, colour_order: str) -> None:
    levels = 2 if likelihood == "bernoulli" else 17
    model = sharp_model(family, likelihood, levels=levels, colour_order=colour_order).double()
    first, *others = [sample(model, 3, seed=5, method=method, temperature=0.7) for method in METHODS]
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_no_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="`temperature` must be a number above 0, but got"):
        sample(sharp_model(), 1, temperature=temperature)


def test_progress_is_told_to_its_end() -> None:
    model = sharp_model(shape=(3, 4, 4), colour_order="mask")
    for method in METHODS:
        told: list[int] = []
        sample(model, 3, method=method, batch_size=2, advance=told.append)
        assert sum(told) == 2 * 48
        assert len(told) > 2


@pytest.mark.parametrize("method", METHODS)
def test_an_image_depends_on_seed_and_index_only(method: str) -> None:
    model = sharp_model(levels=17).double()
    images = sample(model, 5, seed=2, method=method)
    assert images.shape == (5, 3, 3, 4)
    assert images.dtype == torch.uint8
    assert torch.equal(sample(model, 5, seed=2, method=method, batch_size=2), images)
    assert torch.equal(sample(model, 3, seed=2, method=method), images[:3])
    assert not torch.equal(sample(model, 5, seed=3, method=method), images)


@pytest.mark.parametrize(
    ("colour_order", "split", "calls"), [("mask", 1, 48), ("likelihood", 1, 16), ("mask", 2, 12), ("likelihood", 2, 4)]
)
def test_naive_makes_one_call_a_step_of_the_order(colour_order: str, split: int, calls: int) -> None:
    """C·H·W/s² where the network orders the colours, H·W/s² where the likelihood does."""
    model, seen = sharp_model(shape=(3, 4, 4), colour_order=colour_order, split=split), []
    model.network.register_forward_hook(lambda *_: seen.append(1))
    sample(model, 2, method="naive")
    assert len(seen) == calls


def test_mode_and_random_state_are_left_as_they_were() -> None:
    model, state = sharp_model(dropout=0.5).train(), torch.random.get_rng_state()
    first = sample(model, 2)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(sample(model.eval(), 2), first)


@every_network
@pytest.mark.parametrize("conditioning", ["bias", "map"])
def test_a_sample_is_of_its_label(family: str, colour_order: str, conditioning: str) -> None:
    """θ of the finished image and its label draws the same image again; θ of another label does not."""
    model = sharp_model(
        family, levels=17, colour_order=colour_order, conditioning=conditioning, label_dropout=0.5
    ).double()
    labels = torch.tensor([0, 1, 2, NO_LABEL])
    x = sample(model, 4, seed=5, labels=labels, batch_size=3)
    assert torch.equal(drawn_again(model, x, 5, labels), x)
    assert (drawn_again(model, x, 5, labels.roll(1)) != x).flatten(1).any(1).all()
    assert torch.equal(sample(model, 2, labels=[NO_LABEL] * 2), sample(model, 2))


@pytest.mark.parametrize(
    ("conditioning", "labels", "words"),
    [
        ("none", [0, 1], "need a model with a model.conditioning"),
        ("bias", [0], "must be 2, one an image, but got shape"),
        ("bias", 0, "must be 2, one an image, but got shape"),
        ("map", [0, 3], r"must be in 0..2, or be -1 for none, but got 0 to 3"),
        ("map", [0.0, 1.5], r"must be whole numbers, but got torch.float32"),
        ("map", [True, False], r"must be whole numbers, but got torch.bool"),
        ("map", [0, -2], r"must be in 0..2, or be -1 for none, but got -2 to 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(conditioning: str, labels: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sample(sharp_model(conditioning=conditioning), 2, labels=labels)


def test_a_label_that_training_never_left_out_is_missed() -> None:
    with pytest.warns(UserWarning, match="never trained without one"):
        sample(sharp_model(conditioning="bias"), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(sharp_model(conditioning="bias", label_dropout=0.1), 2)
        sample(sharp_model(conditioning="bias"), 2, labels=[0, 1])
        sample(sharp_model(), 2)


def test_unknown_method_and_empty_request_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`method` must be one of naive.*, but got 'nave'"):
        sample(sharp_model(), 1, method="nave")
    with pytest.raises(ConfigError, match="at least 1, but got 0"):
        sample(sharp_model(), 0)
