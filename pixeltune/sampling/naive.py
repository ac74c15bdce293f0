"""Ancestral sampling in the order of the model: one full network pass a call, for any family."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.models import DensityModel


def naive(model: DensityModel, noise_BNHW: Tensor, label_B: Tensor | None = None) -> Tensor:
    """Levels x_BCHW (int64) as a fixed function of the weights, the noise and the labels.

    What is not drawn yet stands as level 0, which no θ that is read depends on.
    """
    order_CHW = model.order()
    x_BCHW = noise_BNHW.new_zeros((len(noise_BNHW), *order_CHW.shape), dtype=torch.int64)
    for call in range(int(order_CHW.max()) + 1):
        theta = model.parameters_of(model.scale(x_BCHW), label_B)
        draw(model, theta, noise_BNHW, order_CHW == call, into=x_BCHW)
    return x_BCHW


def draw(model: DensityModel, theta: Tensor, noise_BNHW: Tensor, now_CHW: Tensor, *, into: Tensor) -> None:
    """Draw the sub-pixels marked in `now_CHW` into the levels `into`; only their pixels' θ are read."""
    rows, cols = now_CHW.any(0).nonzero(as_tuple=True)
    now_Cn = now_CHW[:, rows, cols].to(into.device)
    # The likelihood takes images: the n pixels become the rows of one that is a single column wide.
    levels_BCn1 = model.likelihood.sample(theta[..., rows, cols, None], noise_BNHW[..., rows, cols, None])
    into[..., rows, cols] = torch.where(now_Cn, levels_BCn1[..., 0], into[..., rows, cols])
