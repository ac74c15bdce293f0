"""The real network, at its real shape and weights: what comes after a cut of its order must not matter before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixeltune.audit.sites import (
    LEAK_TOLERANCE,
    device_of,
    fixed_generator,
    leak,
    passes,
    site_order,
    theta_by_site,
    two_images,
)
from pixeltune.errors import AuditError
from pixeltune.models import DensityModel

NUM_CUTS = 32


def check_cuts(model: DensityModel) -> float:
    """Change everything from a cut of `order()` on; θ up to the cut must stay, and some later θ must not.

    Returns the largest forbidden change, relative to max(1, |θ|). Raises AuditError.
    """
    order_CHW, order_S = model.order().to(device_of(model)), site_order(model).to(device_of(model))
    base_CHW, other_CHW = two_images(model)
    theta_SP = theta_by_site(model, base_CHW[None])[0]
    scale = max(1.0, float(theta_SP.abs().max()))
    max_change = max_effect = 0.0
    for cuts in passes(_cuts(order_S), model):
        is_changed_BCHW = order_CHW >= cuts[:, None, None, None]
        change_BS = (theta_by_site(model, torch.where(is_changed_BCHW, other_CHW, base_CHW)) - theta_SP).abs().amax(2)
        forbidden_BS = change_BS.where(order_S <= cuts[:, None], 0.0) / scale
        if not forbidden_BS.max() <= LEAK_TOLERANCE:
            image, site = divmod(int(forbidden_BS.nan_to_num(nan=math.inf).argmax()), len(order_S))
            raise leak(model, site, _offender(model, site, int(cuts[image]), base_CHW, other_CHW))
        max_change = max(max_change, float(forbidden_BS.max()))
        max_effect = max(max_effect, float(change_BS.max()))
    if order_S.max() > 0 and max_effect <= LEAK_TOLERANCE * scale:
        raise AuditError(
            "θ must depend on earlier sub-pixels, but changing them changes nothing; the model is rejected"
        )
    return max_change


def _offender(model: DensityModel, site: int, cut: int, base_CHW: Tensor, other_CHW: Tensor) -> tuple[int, ...]:
    """A sub-pixel (c, row, col) at or after the cut whose change alone moves θ at the site.

    The sub-pixels are changed one after another; θ is the base's before the first and not after the last, so bisection
    meets one at which it moves.
    """
    order_n = model.order().flatten().to(base_CHW.device)
    changing = order_n.argsort(stable=True)[int((order_n < cut).sum()) :]
    theta_P = theta_by_site(model, base_CHW[None])[0, site]
    low, high = 0, len(changing)
    while high - low > 1:
        middle = (low + high) // 2
        x_n = base_CHW.flatten().clone()
        x_n[changing[:middle]] = other_CHW.flatten()[changing[:middle]]
        moved_P = (theta_by_site(model, x_n.view(1, *base_CHW.shape))[0, site] - theta_P).abs()
        stays = moved_P.max() <= LEAK_TOLERANCE * max(1.0, float(theta_P.abs().max()))
        low, high = (middle, high) if stays else (low, middle)
    return tuple(int(i) for i in torch.unravel_index(changing[high - 1], base_CHW.shape))


def _cuts(order_S: Tensor) -> Tensor:
    """Up to 32 calls of the order, drawn without repetition."""
    num_calls = int(order_S.max()) + 1
    return torch.randperm(num_calls, generator=fixed_generator())[:NUM_CUTS].to(order_S.device)
