"""Sampling by iteration: whole images are drawn again under the same noise until nothing changes.

Given the noise, a sub-pixel is a function of those before it in the model's order, so the image that `naive` draws is
the one fixed point. Each iteration settles at least the next call of that order, from any start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pixeltune.models import DensityModel
from pixeltune.sampling.request import SampleRequest


def fixed_point(model: DensityModel, drawing: SampleRequest) -> Tensor:
    """Draw the images of `naive`, of any causal model, in at most one network pass more than its order has calls."""
    *_, x_BCHW = _counted(iterates(model, drawing), int(model.order().max()) + 1, drawing.advance)
    return x_BCHW


def _counted(passes: Iterator[Tensor], calls: int, advance: Callable[[int], None]) -> Iterator[Tensor]:
    """Count each pass for the one call that it settles at least, the last one for all that are left."""
    left = calls
    for x_BCHW in passes:
        now = min(1, left)
        left -= now
        advance(now)
        yield x_BCHW
    advance(left)


def iterates(model: DensityModel, drawing: SampleRequest) -> Iterator[Tensor]:
    """Yield the images (B, C, H, W) after each network pass; those that a pass left as they were sit out the next.

    They start as level 0 everywhere, as in `naive`: after k passes they agree with it at least up to its k-th call.
    """
    noise_BNhw = drawing.noise_BNhw
    x_BCHW = noise_BNhw.new_zeros((len(drawing), *model.form.shape), dtype=torch.int64)
    if drawing.given is not None:
        x_BCHW = drawing.given.put_into(x_BCHW)
    moving = torch.arange(len(x_BCHW), device=x_BCHW.device)
    # The bound holds in exact arithmetic; where θ is rounded otherwise in another batch, the last call is the last.
    for _ in range(int(model.order().max()) + 2):
        part = drawing.of(moving)
        theta = model.parameters_given(model.scale(x_BCHW[moving]), part.s)
        drawn = model.draw(theta, part.noise_BNhw, part.temperature)
        if part.given is not None:
            drawn = part.given.put_into(drawn)
        has_moved = (drawn != x_BCHW[moving]).flatten(1).any(1)
        x_BCHW[moving] = drawn
        yield x_BCHW
        moving = moving[has_moved]
        if not len(moving):
            return
