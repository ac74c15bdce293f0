"""Sites, the places of one θ each: sub-pixels where the network orders the colours, else pixels, or offsets of tiles.

Legend of shapes: B batch, C colours, H×W pixels, P parameters, S sites.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.errors import AuditError
from pixeltune.models import DensityModel

PIXELS_PER_PASS = 2**13
"""Bounds the memory of a pass: eight 32×32 images."""

LEAK_TOLERANCE = 1e-11
"""Largest change of θ, relative to max(1, |θ|), that counts as none. Float64 rounds at 1e-16, sums of a few thousand
terms at 1e-14, and a device may add them in another order in another batch; a wrong mask bit moves θ by far more."""


def theta_of(model: DensityModel, x_BCHW: Tensor) -> Tensor:
    """θ of images in [−1, 1], all of class 0 where the model takes labels, and of one z where it has a latent.

    Not of z = 0, where a leak that is multiplied by z would vanish; and positive, to close no ReLU of the narrow twin.
    """
    label_B = torch.zeros(len(x_BCHW), dtype=torch.int64, device=x_BCHW.device)
    z_1D = model.draw_latent(fixed_generator()).abs().to(x_BCHW)
    return model.parameters_of(x_BCHW, label_B, z_1D.expand(len(x_BCHW), -1))


def by_site(model: DensityModel, theta: Tensor) -> Tensor:
    """θ as (B, S, P); the sites of a subpixel-causal model are (colour, row, col) in that order, flat."""
    return theta.flatten(2).movedim(1, 2) if model.likelihood.is_joint else theta.movedim(2, -1).flatten(1, 3)


def theta_by_site(model: DensityModel, x_BCHW: Tensor) -> Tensor:
    """θ (B, S, P) of integer levels."""
    with torch.no_grad():
        return by_site(model, theta_of(model, model.scale(x_BCHW)))


def site_order(model: DensityModel) -> Tensor:
    """(S,): the call in which each site's θ is read."""
    order = model.split.to_sites(model.order()[None])[0]
    return (order[0] if model.likelihood.is_joint else order).flatten()


def gradients(model: DensityModel, x_BCHW: Tensor, sites_B: Tensor) -> Tensor:
    """d(sum of θ at site b)/dx in image b, (B, C, H, W): one row of the Jacobian an image."""
    with torch.enable_grad():
        x_BCHW = x_BCHW.detach().requires_grad_()
        theta_BS = by_site(model, theta_of(model, x_BCHW)).sum(2)
        total = theta_BS.gather(1, sites_B.to(theta_BS.device)[:, None]).sum()
        # The second term lets a network that ignores its input be differentiated, and so be rejected by name.
        return torch.autograd.grad(total + 0.0 * x_BCHW.sum(), x_BCHW)[0]


def leak(model: DensityModel, site: int, subpixel: tuple[int, ...]) -> AuditError:
    """θ of a site depends on a sub-pixel (colour, row, col) that comes too late."""
    return AuditError(
        f"{theta_at(model, site)} must not depend on {subpixel_at(model, subpixel)}, but it does; the model is rejected"
    )


def theta_at(model: DensityModel, site: int) -> str:
    """In words."""
    H, W = model.split.to_sites(model.order()[None]).shape[-2:]
    colour, row, col = site // (H * W), site // W % H, site % W
    place = f"row {row}, col {col}" + ("" if model.likelihood.is_joint else f", colour {colour}")
    return f"θ at ({place}), drawn in call {int(site_order(model)[site])},"


def subpixel_at(model: DensityModel, subpixel: tuple[int, ...]) -> str:
    """In words."""
    colour, row, col = subpixel
    return f"(row {row}, col {col}, colour {colour}), drawn in call {int(model.order()[colour, row, col])}"


def passes(per_image: Tensor, model: DensityModel) -> tuple[Tensor, ...]:
    """Split what there is one of per image into passes of bounded memory."""
    images_per_pass = max(1, PIXELS_PER_PASS // (model.form.height * model.form.width))
    return torch.split(per_image, images_per_pass)


def device_of(model: DensityModel) -> torch.device:
    """Where its weights are."""
    return next(model.parameters()).device


def fixed_generator() -> torch.Generator:
    """The same numbers for every audit."""
    return torch.Generator().manual_seed(0)


def two_images(model: DensityModel) -> tuple[Tensor, Tensor]:
    """Two images (C, H, W) of random levels that differ in every sub-pixel."""
    generator, K = fixed_generator(), model.form.levels
    base_CHW = torch.randint(K, model.form.shape, generator=generator)
    other_CHW = (base_CHW + torch.randint(1, K, model.form.shape, generator=generator)) % K
    return base_CHW.to(device_of(model)), other_CHW.to(device_of(model))
