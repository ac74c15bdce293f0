"""The narrow network: the same classes at 8×8, in tiles of at least 4×4, and every entry of its Jacobian."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from pixeltune.audit.sites import (
    conditions_of,
    fixed_generator,
    gradients,
    images_per_pass,
    leak,
    open_zeros,
    site_order,
    subpixel_at,
    theta_at,
)
from pixeltune.config import FamilyConfig
from pixeltune.errors import AuditError
from pixeltune.models import DensityModel, assemble, seeded

NARROW_SIZE = 8
NARROW_TILE = 4


def narrow_twin(model: DensityModel) -> DensityModel:
    """Build the same classes, narrow, for two-level images of about 8×8, with weights that hide no path."""
    family = narrow_config(model)
    size = _narrow_size(model)
    form = replace(model.form, height=size, width=size, levels=2)
    likelihood = replace(model.likelihood, levels=2)
    config = model.config.model_copy(update={"model": family})
    with torch.device("cpu"), seeded(0):
        twin = assemble(config, form, likelihood, network_class=type(model.network))
    twin.double().eval().requires_grad_(False)
    _open_all_paths(twin)
    return twin


def check_jacobian(model: DensityModel) -> None:
    """Differentiate θ at every site by every sub-pixel, the sites given the audited labels in turn.

    Raises AuditError on a leak, on a θ without a past, and on a blind spot where the family claims none.
    """
    order_CHW, order_S = model.order(), site_order(model)
    x_CHW = _positive_image(model)
    given = conditions_of(model, len(order_S), is_positive=True)
    for sites in torch.split(torch.arange(len(order_S)), images_per_pass(model)):
        matters_SCHW = gradients(model, x_CHW.repeat(len(sites), 1, 1, 1), sites, given[sites]) != 0
        is_past_SCHW = order_CHW < order_S[sites][:, None, None, None]
        for site, matters, is_past in zip(sites.tolist(), matters_SCHW, is_past_SCHW, strict=True):
            _require_no_leak(model, site, matters & ~is_past)
            _require_past(model, site, matters, is_past)


def _positive_image(model: DensityModel) -> Tensor:
    """Draw an image (C, H, W) in [0.5, 1], half of it saturated: positive inputs keep ReLUs open."""
    generator = fixed_generator()
    x_CHW = 0.5 + 0.5 * torch.rand(model.form.shape, generator=generator, dtype=torch.float64)
    return x_CHW.where(torch.rand(model.form.shape, generator=generator) < 0.5, 1.0)


def _require_no_leak(model: DensityModel, site: int, leaks_CHW: Tensor) -> None:
    if leaks_CHW.any():
        raise leak(model, site, tuple(leaks_CHW.nonzero()[0].tolist()))


def _require_past(model: DensityModel, site: int, matters_CHW: Tensor, is_past_CHW: Tensor) -> None:
    unseen_CHW = is_past_CHW & ~matters_CHW
    if is_past_CHW.any() and not (is_past_CHW & matters_CHW).any():
        raise AuditError(f"{theta_at(model, site)} must depend on some earlier sub-pixel, but depends on none")
    if unseen_CHW.any() and not model.config.model.has_blind_spot:
        raise AuditError(
            f"{theta_at(model, site)} must depend on every earlier sub-pixel, as family "
            f"{model.config.model.family} has no blind spot, but does not depend on "
            f"{subpixel_at(model, tuple(unseen_CHW.nonzero()[0].tolist()))}; the model is rejected"
        )


def _open_all_paths(model: nn.Module) -> None:
    """Make every weight positive and every output an average of its inputs.

    On positive inputs no ReLU is then dead, no two paths cancel and no gate saturates: a derivative is zero if and
    only if there is no path. The label's features are inputs too: a negative map would close ReLUs. What is zero would
    hide a path, or divide by zero.
    """
    open_zeros(model)
    for parameter in model.parameters():
        parameter.abs_()
        if parameter.dim() > 1:
            parameter.div_(parameter.flatten(1).sum(1).view(-1, *[1] * (parameter.dim() - 1)))


def narrow_config(model: DensityModel) -> FamilyConfig:
    """Return the narrow network's structure."""
    return model.config.model.narrow(model.form.channels, _narrow_size(model) // model.config.model.split)


def _narrow_size(model: DensityModel) -> int:
    """Return the smallest size at least 8, in tiles of at least 4, that the family can take."""
    family = model.config.model
    multiple = family.split * family.divisor
    return math.ceil(max(NARROW_SIZE, NARROW_TILE * family.split) / multiple) * multiple
