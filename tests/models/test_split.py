"""Split: tiles as published, on every family and likelihood."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from pixeltune.audit import audit
from pixeltune.config import Causality, ImageSpec
from pixeltune.models import DensityModel, build_model
from pixeltune.models.split import Split, from_tiles, to_tiles
from tests.support.model_kinds import COUPLING_FAMILIES, every_kind, every_kind_and, every_network, every_network_and
from tests.support.slow_nats import slow_nats
from tests.support.tiny_models import all_images, exact_log_prob, exact_theta, random_levels, tiny_config, tiny_model

every_causality = pytest.mark.parametrize("causality", Causality)


def numbered(C: int, H: int, W: int) -> torch.Tensor:
    return torch.arange(2 * C * H * W).reshape(2, C, H, W)


@pytest.mark.parametrize(("C", "H", "W", "s"), [(3, 4, 6, 2), (1, 6, 9, 3), (2, 4, 4, 4), (3, 5, 7, 1)])
def test_tiles_are_contiguous_and_row_major(C: int, H: int, W: int, s: int) -> None:
    x, (h, w) = numbered(C, H, W), (H // s, W // s)
    tiles = to_tiles(x, s)
    assert tiles.shape == (2, s * s, C, h, w)
    for i, j in itertools.product(range(s), range(s)):
        assert torch.equal(tiles[:, i * s + j], x[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w])
    assert torch.equal(from_tiles(tiles, s), x)


def test_channels_are_stacked_as_published_or_colour_by_colour() -> None:
    """x = 10·tile + colour at every place."""
    x = from_tiles((10 * torch.arange(4)[:, None] + torch.arange(3)).reshape(1, 4, 3, 1, 1).expand(1, 4, 3, 2, 2), 2)
    published = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert Split(2, Causality.PIXEL).stack(x)[0, :, 0, 0].tolist() == published
    by_colour = [0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32]
    assert Split(2, Causality.SUBPIXEL).stack(x)[0, :, 0, 0].tolist() == by_colour


def test_coupled_tiles_come_back_from_the_order_of_the_likelihood() -> None:
    split, x = Split(2, Causality.PIXEL, coupled=True), numbered(3, 4, 6)
    assert torch.equal(split.to_sites(x), split.stack(x))
    assert torch.equal(split.from_sites(split.to_sites(x)), x)


@every_causality
def test_parameters_come_to_the_place_of_their_channel(causality: Causality) -> None:
    """A network that gives each input channel back P times gives each sub-pixel itself."""
    split, x, P = Split(2, causality), numbered(3, 4, 6), 5
    stacked = split.stack(x)
    if causality is Causality.SUBPIXEL:
        theta = split.place(stacked.repeat_interleave(P, dim=1), P)
        assert torch.equal(theta, x[:, :, None].expand(-1, -1, P, -1, -1))
    else:
        theta = split.place(stacked, 3)
        assert torch.equal(theta, x)


@every_causality
@pytest.mark.parametrize("C", [1, 3])
def test_order_draws_all_tiles_at_one_offset_together(causality: Causality, C: int) -> None:
    H, W, s = 4, 6, 2
    order = Split(s, causality).order(C, H, W)
    for c, row, col in itertools.product(range(C), range(H), range(W)):
        offset = (row % (H // s)) * (W // s) + col % (W // s)
        assert order[c, row, col] == (offset if causality is Causality.PIXEL else offset * C + c)
    colours = C if causality is Causality.SUBPIXEL else 1
    assert order.max() + 1 == colours * H * W // s**2


def total_probability(model: DensityModel, label: int = 0) -> float:
    x = all_images(model)
    with torch.no_grad():
        return exact_log_prob(model, x, torch.full((len(x),), label)).exp().sum().item()


@every_kind_and(shape=[(1, 2, 4), (2, 2, 2)])
def test_all_images_sum_to_one(family: str, likelihood: str, colour_order: str, shape: tuple[int, int, int]) -> None:
    model = tiny_model(family, likelihood, shape=shape, colour_order=colour_order, split=2)
    assert total_probability(model) == pytest.approx(1, abs=1e-12)


@every_network
def test_all_4x4_images_sum_to_one(family: str, colour_order: str) -> None:
    """2^16 images."""
    model = tiny_model(
        family, "bernoulli", shape=(1, 4, 4), colour_order=colour_order, split=2, channels=4, head_channels=0
    )
    assert total_probability(model) == pytest.approx(1, abs=1e-11)


@every_network_and(split=[1, 2], likelihood=["categorical", "logistic_mixture"])
def test_an_image_is_the_product_of_its_conditionals(
    family: str, colour_order: str, likelihood: str, split: int
) -> None:
    """A slow loop: each sub-pixel's probability from θ of the image in which only smaller calls are known."""
    model = tiny_model(family, likelihood, shape=(2, 4, 4), levels=5, colour_order=colour_order, split=split)
    x, order, nats = random_levels(model, 1), model.order(), 0.0
    for call in range(int(order.max()) + 1):
        known = torch.where(order < call, x[0], 0)[None]
        theta = exact_theta(model, known)[0]
        for colour, row, col in (order == call).nonzero().tolist():
            if not model.likelihood.is_joint:
                nats += slow_nats(model.likelihood, theta[colour, :, row, col].tolist(), [int(x[0, colour, row, col])])
            elif colour == 0:
                nats += slow_nats(model.likelihood, theta[:, row, col].tolist(), x[0, :, row, col].tolist())
    assert exact_log_prob(model, x).item() == pytest.approx(nats, rel=1e-10)


@every_network
@pytest.mark.parametrize("C", [1, 3])
def test_theta_depends_on_earlier_subpixels_only_and_on_all_tiles(family: str, colour_order: str, C: int) -> None:
    model = tiny_model(family, shape=(C, 4, 6), colour_order=colour_order, split=2, channels=31, head_channels=0)
    order = model.order()

    def summed_theta(x: torch.Tensor) -> torch.Tensor:
        theta = model.parameters_of(x[None])[0]
        return theta.sum(0).expand(C, -1, -1) if model.causality is Causality.PIXEL else theta.sum(1)

    x = torch.rand(C, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depends = torch.autograd.functional.jacobian(summed_theta, x, vectorize=True) != 0
    assert not (depends & ~(order < order[..., None, None, None])).any()
    left_neighbour_in_any_tile = depends[-1, 1, 1][0, [1, 1, 3, 3], [0, 3, 0, 3]]
    assert left_neighbour_in_any_tile.all()


def test_the_greens_of_all_tiles_see_all_reds() -> None:
    model = tiny_model("gated", shape=(3, 4, 4), split=2, channels=60)
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.parameters_of(x)[0, 1, :, 0, 0].sum(), x)
    assert (gradient[0, 0, ::2, ::2] != 0).all()
    assert not gradient[0, 1:].any()


@every_kind
def test_parameters_have_the_likelihoods_shape_and_a_gradient(family: str, likelihood: str, colour_order: str) -> None:
    model = tiny_model(family, likelihood, shape=(3, 4, 6), colour_order=colour_order, split=2).train()
    x = random_levels(model, 4)
    assert model.parameters_of(model.scale(x)).shape == model.likelihood.theta_shape(4, 4, 6)
    model.loss(x).mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize(("conditioning", "stages"), [("bias", 1), ("map", 1), ("map", 2)])
def test_split_goes_with_labels_and_resolutions(conditioning: str, stages: int) -> None:
    shape = (1, 2, 4) if stages == 1 else (1, 4, 4)
    model = tiny_model(
        "pixelcnnpp", "bernoulli", shape=shape, split=2, stages=stages, conditioning=conditioning, layers=1, channels=4
    )
    assert total_probability(model, label=1) == pytest.approx(1, abs=1e-11)


def test_the_head_has_the_parameters_of_all_tiles() -> None:
    form = ImageSpec(3, 8, 8, 4)
    one, four = (build_model(tiny_config("pixelcnnpp", split=split), form) for split in (1, 2))
    heads = [model.network.nin_out.b.numel() for model in (one, four)]
    assert heads == [one.likelihood.num_params, 4 * one.likelihood.num_params]
    assert one.likelihood == four.likelihood


# --- Tiles that share an indicator ------------------------------------------------------------------------------------

every_coupling_family = pytest.mark.parametrize("family", COUPLING_FAMILIES)


def coupled_model(family: str, **model: Any) -> DensityModel:
    return tiny_model(family, "logistic_mixture", colour_order="likelihood", split=2, split_coupling="mixture", **model)


@every_coupling_family
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 2, 2)])
def test_all_images_of_coupled_tiles_sum_to_one(family: str, shape: tuple[int, int, int]) -> None:
    assert total_probability(coupled_model(family, shape=shape)) == pytest.approx(1, abs=1e-12)


@every_coupling_family
def test_coupled_tiles_are_the_product_of_their_conditionals(family: str) -> None:
    """A slow loop: offsets in order, then tile after tile and colour after colour, each given those before."""
    model = coupled_model(family, shape=(3, 4, 6), levels=5)
    x, nats = random_levels(model, 1), 0.0
    stacked = model.split.stack(x)
    for offset in range(6):
        row, col = divmod(offset, 3)
        known = torch.where(model.order() < offset, x[0], 0)[None]
        theta = exact_theta(model, known)[..., row : row + 1, col : col + 1]
        for j in range(12):
            table = model.likelihood.table(theta, stacked[:, :j, row : row + 1, col : col + 1])
            nats += table[0, stacked[0, j, row, col], 0, 0].log().item()
    assert exact_log_prob(model, x).item() == pytest.approx(nats, rel=1e-10)


def test_coupled_tiles_are_not_independent() -> None:
    """Two images that differ in two tiles at one offset: the double difference of log p is zero if independent."""
    model = coupled_model("gated", shape=(1, 2, 2), levels=17)
    independent = tiny_model(
        "gated", "logistic_mixture", colour_order="likelihood", split=2, shape=(1, 2, 2), levels=17
    )
    x = torch.tensor([[0, 0], [16, 0], [0, 16], [16, 16]])
    images = torch.stack([x[:, 0], x[:, 1], torch.full((4,), 8), torch.full((4,), 8)], 1).reshape(4, 1, 2, 2)
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    assert abs((independent.log_prob(images) * signs).sum().item()) < 1e-10
    assert abs((model.log_prob(images) * signs).sum().item()) > 1e-6


@every_coupling_family
def test_coupled_tiles_pass_the_audit_and_train(family: str) -> None:
    model = coupled_model(family, shape=(3, 8, 8), levels=17)
    report = audit(model)
    assert report.max_change <= 1e-11
    assert model.parameters_of(model.scale(random_levels(model, 2))).shape == model.likelihood.theta_shape(2, 4, 4)
    model.train().loss(random_levels(model, 4)).mean().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_a_shared_indicator_saves_the_other_tiles_logits() -> None:
    alone, together = (
        tiny_model(
            "gated", "logistic_mixture", colour_order="likelihood", split=2, split_coupling=coupling, shape=(3, 4, 4)
        )
        for coupling in ("independent", "mixture")
    )
    M = alone.likelihood.mixtures
    heads = [model.network.head[-1].out_channels for model in (alone, together)]
    assert heads == [4 * 10 * M, (1 + 4 * 9) * M]
