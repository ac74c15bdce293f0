"""Sampling by iteration: whole images are drawn again under the same noise until nothing changes.

Given the noise, a sub-pixel is a function of those before it in the model's order, so the image that `naive` draws is
the one fixed point. Each iteration settles at least the next call of that order, whatever the start.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pixeltune.models import DensityModel


def fixed_point(model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> Tensor:
    """The images of `naive`, of any causal model; at most one network pass more than its order has calls."""
    *_, x_BCHW = iterates(model, noise_BNhw, s)
    return x_BCHW


def iterates(model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> Iterator[Tensor]:
    """The images (B, C, H, W) after each network pass; those that a pass left as they were sit out the next.

    They start as level 0 everywhere, as in `naive`: after k passes they agree with it at least up to its k-th call.
    """
    x_BCHW = noise_BNhw.new_zeros((len(noise_BNhw), *model.form.shape), dtype=torch.int64)
    moving = torch.arange(len(x_BCHW), device=x_BCHW.device)
    # The bound holds in exact arithmetic; where θ is rounded otherwise in another batch, the last call is the last.
    for _ in range(int(model.order().max()) + 2):
        theta = model.parameters_given(model.scale(x_BCHW[moving]), None if s is None else s[moving])
        drawn = model.draw(theta, noise_BNhw[moving])
        has_moved = (drawn != x_BCHW[moving]).flatten(1).any(1)
        x_BCHW[moving] = drawn
        yield x_BCHW
        moving = moving[has_moved]
        if not len(moving):
            return
