"""Every combination of a model's settings keeps every promise, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pixeltune.errors import ConfigError
from pixeltune.likelihoods import build_likelihood
from pixeltune.models import DensityModel, build_model
from pixeltune.training.precision import autocast
from pixeltune.training.weights import load_model, save_weights
from tests.support.model_combinations import FORM_FAULTS, MODEL_FAULTS, NETWORKS, Combination, covering, product
from tests.support.tiny_models import one_latent, random_levels

FAULTS = ("", *FORM_FAULTS, *MODEL_FAULTS)
NUM_CUTS = 6


@pytest.mark.parametrize("combination", covering(2), ids=str)
def test_any_two_settings_together_keep_every_promise(combination: Combination, tmp_path: Path) -> None:
    require_promises(combination, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_combination_keeps_every_promise(network: str, tmp_path: Path) -> None:
    """2,439 models in all."""
    for combination in product(network):
        if not combination.reasons():
            try:
                require_promises(combination, tmp_path)
            except Exception as error:
                error.add_note(str(combination))
                raise


@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_what_makes_no_sense_is_refused_with_the_reason(network: str) -> None:
    """41,310 combinations in all, those with a fault included, up to where the network would be made."""
    for combination in product(network, faults=FAULTS):
        require_refusal_or_none(combination, _checks_before_the_network)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_fault_does_not_concern_builds(network: str) -> None:
    """Of two levels: the others differ in the size of the head alone."""
    for combination in product(network, faults=FAULTS[1:]):
        if combination.levels == 2:
            require_refusal_or_none(combination, lambda c: build_model(c.config(), c.form))


def test_every_reason_of_a_refusal_occurs() -> None:
    reasons = {words for combination in product(faults=FAULTS) for words in combination.reasons()}
    assert len(reasons) == 13


# --- Refusals ---------------------------------------------------------------------------------------------------------


def require_refusal_or_none(combination: Combination, build: Callable[[Combination], object]) -> None:
    """One line, of one of the reasons; and none without a reason."""
    reasons = combination.reasons()
    try:
        build(combination)
    except ConfigError as error:
        words = str(error)
    else:
        words = ""
    assert bool(words) is bool(reasons), (str(combination), words, reasons)
    if words:
        assert any(reason in words for reason in reasons), (str(combination), words, reasons)
        assert "\n" not in words


def _checks_before_the_network(combination: Combination) -> None:
    model, form = combination.config().model, combination.form
    model.require_form(form)
    likelihood = combination.config().likelihood
    build_likelihood(likelihood, form=form, causality=model.causality, coupled_tiles=model.coupled_tiles)


# --- Promises ---------------------------------------------------------------------------------------------------------


def require_promises(combination: Combination, folder: Path) -> None:
    model = build_model(combination.config(), combination.form).eval()
    _shake(model)
    x, label = random_levels(model, 3), torch.arange(3)
    _is_saved_and_loaded(model, x, label, str(folder / "weights.safetensors"))
    _is_nearly_the_same_in_bfloat16(model, x, label)
    model.double()
    _has_as_many_calls_as_it_says(model)
    _depends_on_earlier_calls_only(model, x, label)
    _sums_to_one(model, x, label)
    _gives_each_parameter_a_gradient(model, x, label)


def _shake(model: DensityModel) -> None:
    """Away from the initial weights, which the seed alone would restore, and from the zeros among them."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor += torch.rand(tensor.shape, generator=generator)
            elif tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape, generator=generator)


def _is_saved_and_loaded(model: DensityModel, x: torch.Tensor, label: torch.Tensor, location: str) -> None:
    save_weights(model, model.config, location)
    again = load_model(location)
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again.log_prob(x, label), model.log_prob(x, label))


def _is_nearly_the_same_in_bfloat16(model: DensityModel, x: torch.Tensor, label: torch.Tensor) -> None:
    with torch.no_grad():
        exact = model.log_prob(x, label)
        with autocast("bfloat16", x.device):
            nats = model.log_prob(x, label)
    assert nats.dtype == exact.dtype == torch.float32
    assert exact.isfinite().all()
    torch.testing.assert_close(nats, exact, rtol=0.02, atol=0)


def _has_as_many_calls_as_it_says(model: DensityModel) -> None:
    """One an offset of a tile, and one a colour where the network orders them: each number once in every tile."""
    settings, form = model.config.model, model.form
    calls = form.height * form.width // settings.split**2
    if not model.likelihood.is_joint:
        calls *= form.channels
    assert model.order().shape == form.shape
    drawn_together = model.order().flatten().bincount()
    assert len(drawn_together) == calls
    assert (drawn_together == form.dims // calls).all()


def _theta_by_site(model: DensityModel, x_BCHW: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """θ (B, S, P) of images in [−1, 1]; a site is a place of one θ."""
    theta = model.parameters_of(x_BCHW, label, one_latent(model, len(x_BCHW)))
    return theta.flatten(2).movedim(1, 2) if model.likelihood.is_joint else theta.movedim(2, -1).flatten(1, 3)


def _depends_on_earlier_calls_only(model: DensityModel, x: torch.Tensor, label: torch.Tensor) -> None:
    order = model.order()
    at_sites = model.split.to_sites(order[None])[0]
    order_S = (at_sites[0] if model.likelihood.is_joint else at_sites).flatten()
    cuts = torch.linspace(0, int(order.max()), NUM_CUTS).long()
    label_B = label[:1].expand(NUM_CUTS)

    is_changed = order >= cuts[:, None, None, None]
    base, other = model.scale(x[0]), model.scale((x[0] + 1) % model.form.levels)
    with torch.no_grad():
        theta = _theta_by_site(model, torch.where(is_changed, other, base), label_B)
        untouched = _theta_by_site(model, base[None], label[:1])
    change_BS = (theta - untouched).abs().amax(2) / untouched.abs().max().clamp(min=1)
    assert change_BS[order_S <= cuts[:, None]].max() <= 1e-11
    assert change_BS[0].max() > 1e-9

    x_BCHW = base.expand(NUM_CUTS, -1, -1, -1).clone().requires_grad_()
    theta_BS = _theta_by_site(model, x_BCHW, label_B).sum(2)
    sites = torch.stack([(order_S == cut).nonzero()[-1, 0] for cut in cuts])
    (gradient,) = torch.autograd.grad(theta_BS.gather(1, sites[:, None]).sum(), x_BCHW)
    is_past = order < cuts[:, None, None, None]
    assert not gradient[~is_past].any()
    assert gradient[is_past].any()


def _sums_to_one(model: DensityModel, x: torch.Tensor, label: torch.Tensor) -> None:
    """Each colour's levels at the model's own θ; and log p is the sum of the logs of the levels that are there."""
    z = one_latent(model, len(x))
    with torch.no_grad():
        theta, levels = model.parameters_of(model.scale(x), label, z), model.split.to_sites(x)
        nats = torch.zeros(len(x), dtype=torch.float64)
        for j in range(levels.shape[1]):
            table = model.likelihood.table(theta, levels[:, :j])
            assert (table.sum(1) - 1).abs().max() <= 1e-12
            nats += table.gather(1, levels[:, j : j + 1]).log().sum((1, 2, 3))
        torch.testing.assert_close(model.log_prob_given(x, label, z), nats, rtol=1e-10, atol=0)


def _gives_each_parameter_a_gradient(model: DensityModel, x: torch.Tensor, label: torch.Tensor) -> None:
    model.loss(x, label).mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
