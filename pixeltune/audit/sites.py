"""Sites, the places of one θ each: sub-pixels where the network orders the colours, else pixels, or offsets of tiles.

Legend of shapes: B batch, C colours, H×W pixels, P parameters, S sites, D latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltune.errors import AuditError
from pixeltune.models import DensityModel
from pixeltune.models.conditioning import NO_LABEL

PIXELS_PER_PASS = 2**13
"""Bounds the memory of a pass: eight 32×32 images."""

MOST_CLASSES = 16
"""Classes that are audited, next to images without a label; a seeded draw of them where there are more."""

LEAK_TOLERANCE = 1e-11
"""Largest change of θ, relative to max(1, |θ|), that counts as none. Float64 rounds at 1e-16, sums of a few thousand
terms at 1e-14, and a device may add them in another order in another batch; a wrong mask bit moves θ by far more."""


@dataclass(frozen=True)
class Conditions:
    """The label (a class, or NO_LABEL) and the latent that θ of each image is given."""

    label_B: Tensor
    z_BD: Tensor

    def __getitem__(self, rows: Tensor) -> Conditions:
        """Return those of some of the images."""
        return Conditions(self.label_B[rows], self.z_BD[rows])


def audited_labels(model: DensityModel) -> Tensor:
    """Return the labels (L,) that an audit must try: every class, or a draw of them, and NO_LABEL; 0 without labels."""
    if model.conditioning is None:
        return torch.zeros(1, dtype=torch.int64)
    classes = torch.arange(model.conditioning.num_classes)
    if len(classes) > MOST_CLASSES:
        classes = classes[torch.randperm(len(classes), generator=fixed_generator())[:MOST_CLASSES]]
    return torch.cat([classes, torch.tensor([NO_LABEL])])


def conditions_of(model: DensityModel, count: int, *, is_positive: bool = False) -> Conditions:
    """Return conditions for `count` images, which take the audited labels in turn and a z each.

    z is never 0, where a leak that is multiplied by z would vanish. is_positive: so that z closes no ReLU of the
    narrow twin.
    """
    labels_L, generator = audited_labels(model), fixed_generator()
    z_BD = torch.cat([model.draw_latent(generator) for _ in range(count)])
    weight = next(model.parameters())
    label_B = labels_L[torch.arange(count) % len(labels_L)].to(weight.device)
    return Conditions(label_B, (z_BD.abs() if is_positive else z_BD).to(weight))


def theta_of(model: DensityModel, x_BCHW: Tensor, given: Conditions) -> Tensor:
    """Return θ of images in [−1, 1]."""
    return model.parameters_of(x_BCHW, given.label_B, given.z_BD)


def by_site(model: DensityModel, theta: Tensor) -> Tensor:
    """Return θ as (B, S, P); the sites of a subpixel-causal model are (colour, row, col) in that order, flat."""
    return theta.flatten(2).movedim(1, 2) if model.likelihood.is_joint else theta.movedim(2, -1).flatten(1, 3)


def largest_by_site(model: DensityModel, theta: Tensor) -> Tensor:
    """Return the largest parameter of each site, (B, S), in the order of `by_site`."""
    return theta.amax(1 if model.likelihood.is_joint else 2).flatten(1)


def theta_of_levels(model: DensityModel, x_BCHW: Tensor, given: Conditions) -> Tensor:
    """Return θ of integer levels, without gradients."""
    with torch.no_grad():
        return theta_of(model, model.scale(x_BCHW), given)


def site_order(model: DensityModel) -> Tensor:
    """Return (S,): the call in which each site's θ is read."""
    order = model.split.to_sites(model.order()[None])[0]
    return (order[0] if model.likelihood.is_joint else order).flatten()


def gradients(model: DensityModel, x_BCHW: Tensor, sites_B: Tensor, given: Conditions) -> Tensor:
    """Return d(sum of θ at site b)/dx in image b, (B, C, H, W): one row of the Jacobian an image."""
    with torch.enable_grad():
        x_BCHW = x_BCHW.detach().requires_grad_()
        theta_BS = by_site(model, theta_of(model, x_BCHW, given)).sum(2)
        total = theta_BS.gather(1, sites_B.to(theta_BS.device)[:, None]).sum()
        # The second term lets a network that ignores its input be differentiated, and so be rejected by name.
        return torch.autograd.grad(total + 0.0 * x_BCHW.sum(), x_BCHW)[0]


def leak(model: DensityModel, site: int, subpixel: tuple[int, ...]) -> AuditError:
    """Return the error that θ of a site depends on a sub-pixel (colour, row, col) that comes too late."""
    return AuditError(
        f"{theta_at(model, site)} must not depend on {subpixel_at(model, subpixel)}, but it does; the model is rejected"
    )


def theta_at(model: DensityModel, site: int) -> str:
    """Describe θ of a site in words."""
    H, W = model.split.to_sites(model.order()[None]).shape[-2:]
    colour, row, col = site // (H * W), site // W % H, site % W
    place = f"row {row}, col {col}" + ("" if model.likelihood.is_joint else f", colour {colour}")
    return f"θ at ({place}), drawn in call {int(site_order(model)[site])},"


def subpixel_at(model: DensityModel, subpixel: tuple[int, ...]) -> str:
    """Describe a sub-pixel in words."""
    colour, row, col = subpixel
    return f"(row {row}, col {col}, colour {colour}), drawn in call {int(model.order()[colour, row, col])}"


def images_per_pass(model: DensityModel) -> int:
    """Return how many images fit a pass of bounded memory."""
    return max(1, PIXELS_PER_PASS // (model.form.height * model.form.width))


def device_of(model: DensityModel) -> torch.device:
    """Return the device of its weights."""
    return next(model.parameters()).device


def fixed_generator(seed: int = 0) -> torch.Generator:
    """Return the same numbers for every audit."""
    return torch.Generator().manual_seed(seed)


def open_zeros(model: torch.nn.Module) -> None:
    """Give parameters that are zero a seeded value instead, of either sign.

    A gate that starts at zero (ReZero, LayerScale, a norm's γ, a zero-initialised head) hides what is behind it until
    training opens it. Buffers stay as they are: the zeros of a mask are the causality itself, and a buffer that
    training or evaluation changes is checked with the weights of record (`audit.trained`).
    """
    generator = fixed_generator()
    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.05 + 0.05 * torch.rand(parameter.shape, generator=generator)
            sign = torch.randint(2, parameter.shape, generator=generator) * 2 - 1
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            opened = (size * sign / fan_in**0.5).to(parameter)
            parameter.copy_(parameter.where(parameter != 0, opened))
