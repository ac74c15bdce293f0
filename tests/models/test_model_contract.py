"""What every family promises with every likelihood: exact probabilities, causality, precision, reproducibility."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixeltune.config import FAMILIES, Causality, ImageSpec
from pixeltune.errors import ConfigError
from pixeltune.models import NETWORKS, build_model, eval_mode
from tests.support.model_kinds import every_kind, every_kind_and, every_network
from tests.support.tiny_models import all_images, exact_log_prob, exact_theta, random_levels, tiny_config, tiny_model


def test_every_configured_family_has_a_network() -> None:
    assert set(NETWORKS) == set(FAMILIES)


@every_kind_and(shape=[(1, 3, 3), (2, 2, 2)])
def test_all_images_sum_to_one(family: str, likelihood: str, colour_order: str, shape: tuple[int, int, int]) -> None:
    model = tiny_model(family, likelihood, shape=shape, colour_order=colour_order)
    total = exact_log_prob(model, all_images(model)).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


@every_network
@pytest.mark.parametrize("C", [1, 2, 3])
def test_theta_depends_on_earlier_subpixels_only(family: str, colour_order: str, C: int) -> None:
    """The full Jacobian, at random weights, and at a width that does not divide by C."""
    model = tiny_model(family, shape=(C, 4, 5), colour_order=colour_order, channels=31, head_channels=0)
    order = model.order()

    def summed_theta(x: torch.Tensor) -> torch.Tensor:
        theta = model.parameters_of(x[None])[0]
        return theta.sum(0).expand(C, -1, -1) if model.causality is Causality.PIXEL else theta.sum(1)

    x = torch.rand(C, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depends = torch.autograd.functional.jacobian(summed_theta, x, vectorize=True) != 0
    is_past = order < order[..., None, None, None]
    assert not (depends & ~is_past).any()
    has_past = is_past.flatten(3).any(3)
    assert torch.equal((depends & is_past).flatten(3).any(3), has_past)


@every_kind
def test_parameters_have_the_likelihoods_shape(family: str, likelihood: str, colour_order: str) -> None:
    model = tiny_model(family, likelihood, colour_order=colour_order)
    theta = model.parameters_of(model.scale(random_levels(model, 2)))
    assert theta.shape == model.likelihood.theta_shape(2, 5, 6)
    assert theta.dim() == (5 if model.causality is Causality.SUBPIXEL else 4)


@every_network
def test_order_is_raster_with_colours_inside(family: str, colour_order: str) -> None:
    order = tiny_model(family, shape=(3, 2, 2), colour_order=colour_order).order()
    assert order.dtype == torch.int64
    if colour_order == "mask":
        assert order.permute(1, 2, 0).flatten().tolist() == list(range(12))
    else:
        assert order[0].flatten().tolist() == list(range(4))
        assert torch.equal(order, order[:1].expand(3, -1, -1))


@every_kind
def test_loss_is_nats_and_forward_is_loss(family: str, likelihood: str, colour_order: str) -> None:
    model = tiny_model(family, likelihood, colour_order=colour_order)
    x = random_levels(model, 3).to(torch.uint8)
    assert model.log_prob(x).shape == (3,)
    assert torch.equal(model.loss(x), -model.log_prob(x))
    assert torch.equal(model(x), model.loss(x))


@every_kind
def test_every_parameter_gets_a_gradient(family: str, likelihood: str, colour_order: str) -> None:
    """DistributedDataParallel waits for ever for one that does not."""
    model = tiny_model(family, likelihood, colour_order=colour_order).train()
    model.loss(random_levels(model, 4)).mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@every_kind
def test_bfloat16_autocast_keeps_the_likelihood_in_float32(family: str, likelihood: str, colour_order: str) -> None:
    model = tiny_model(family, likelihood, colour_order=colour_order).float()
    x = random_levels(model, 4)
    with torch.autocast("cpu", torch.bfloat16):
        theta, nats, bound = exact_theta(model, x), exact_log_prob(model, x), model.log_prob(x)
    assert theta.dtype == torch.bfloat16
    assert nats.dtype == bound.dtype == torch.float32
    assert torch.equal(nats, model.likelihood.log_prob(theta.float(), x))
    torch.testing.assert_close(nats, exact_log_prob(model, x), rtol=0.02, atol=0)
    torch.testing.assert_close(bound, model.log_prob(x), rtol=0.02, atol=0)


@every_network
def test_state_dict_restores_the_model(family: str, colour_order: str) -> None:
    model = tiny_model(family, colour_order=colour_order)
    other = build_model(model.config.override({"seed": 4}), model.form).double().eval()
    x = random_levels(model, 2)
    assert not torch.equal(exact_log_prob(model, x), exact_log_prob(other, x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(exact_log_prob(model, x), exact_log_prob(other, x))
    assert not any("mask" in name for name in model.state_dict())


@every_network
def test_initial_weights_are_fixed_by_the_config_seed_alone(family: str, colour_order: str) -> None:
    config, form = tiny_config(family, colour_order=colour_order), ImageSpec(1, 4, 4, 2)
    state = torch.random.get_rng_state()
    first = build_model(config, form)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    second = build_model(config, form)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert next(first.parameters()).dtype == torch.float32


@every_kind
def test_builds_without_memory(family: str, likelihood: str, colour_order: str) -> None:
    with torch.device("meta"):
        model = build_model(
            tiny_config(family, likelihood, colour_order=colour_order, channels=4000, layers=20), ImageSpec(3, 8, 8, 2)
        )
    assert model.num_parameters() > 10**9
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()) if tensor.numel() > 10**4)
    assert model.order().shape == (3, 8, 8)


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if "colour_order" in kind.model_fields])
def test_refuses_fewer_channels_than_colours(family: str) -> None:
    with pytest.raises(ConfigError, match="at least the 3 colours"):
        build_model(tiny_config(family, channels=2), ImageSpec(3, 8, 8, 2))


@every_network
def test_dropout_works_in_training_only(family: str, colour_order: str) -> None:
    model = tiny_model(family, colour_order=colour_order, dropout=0.5)
    x = random_levels(model, 2)
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))


def test_eval_mode_restores_the_mode() -> None:
    model = nn.Dropout().train()
    with eval_mode(model):
        assert not model.training
    assert model.training
