"""Ancestral sampling in the order of the model: one full network pass a call, for any family."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.models import DensityModel


def naive(model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> Tensor:
    """Levels x_BCHW (int64) as a fixed function of the weights, the noise and the features s of label and latent.

    What is not drawn yet stands as level 0, which no θ that is read depends on.
    """
    order_CHW = model.order()
    x_BCHW = noise_BNhw.new_zeros((len(noise_BNhw), *order_CHW.shape), dtype=torch.int64)
    for call in range(int(order_CHW.max()) + 1):
        theta = model.parameters_given(model.scale(x_BCHW), s)
        x_BCHW = draw(model, theta, noise_BNhw, order_CHW == call, x_BCHW)
    return x_BCHW


def draw(model: DensityModel, theta: Tensor, noise_BNhw: Tensor, now_CHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """The levels x with the sub-pixels marked in `now_CHW` drawn; only the θ of their sites are read."""
    x, now = model.split.to_sites(x_BCHW).clone(), model.split.to_sites(now_CHW[None])[0]
    rows, cols = now.any(0).nonzero(as_tuple=True)
    # The likelihood takes images: the n sites become the rows of one that is a single column wide.
    levels_BCn1 = model.likelihood.sample(theta[..., rows, cols, None], noise_BNhw[..., rows, cols, None])
    x[..., rows, cols] = torch.where(now[:, rows, cols].to(x.device), levels_BCn1[..., 0], x[..., rows, cols])
    return model.split.from_sites(x)
