"""Images filled call after call: a walk asks for the levels of each network call, and puts them into the image.

Sampling draws those levels; coding looks them up or reads them from a stream. A walk sees only levels that it was
given before, so that every caller that answers in the same way sees the same numbers.

Legend of shapes: B batch, C colours, c of them drawn in a call, P parameters, n sites drawn in a call, H×W the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltune.models import DensityModel
from pixeltune.sampling.cached import ModelStepper


@dataclass(frozen=True)
class Sites:
    """Sites of one call, in the likelihood's view of images: all that is drawn then, independent given the past.

    rows, cols: (n,). colours: which colours of each site, one after another; of coupled tiles, which of all tiles'.
    """

    rows: Tensor
    cols: Tensor
    colours: slice


Answer = Callable[[Sites, Tensor], Tensor]
"""Levels (B, c, n) of the sites of a call, from θ of their n sites as of an image a column wide, (B, …, P, n, 1)."""

Walk = Callable[[DensityModel, int, Tensor | None, Answer], Tensor]
"""Levels x_BCHW (int64) of B images, call after call, given the features s of label and latent."""


def full_passes(model: DensityModel, batch: int, s: Tensor | None, answer: Answer) -> Tensor:
    """Walk by one pass of the whole network a call, for any family; what is not drawn yet is level 0."""
    order_CHW = model.order()
    device = next(model.parameters()).device
    x_BCHW = torch.zeros((batch, *order_CHW.shape), dtype=torch.int64, device=device)
    x = model.split.to_sites(x_BCHW)
    for call in range(int(order_CHW.max()) + 1):
        sites = _sites(model.split.to_sites((order_CHW == call)[None])[0])
        theta = model.parameters_given(model.scale(model.split.from_sites(x)), s)
        levels_Bcn = answer(sites, theta[..., sites.rows, sites.cols, None])
        x = x.clone()
        x[:, sites.colours, sites.rows, sites.cols] = levels_Bcn
    return model.split.from_sites(x)


def stepped(model: DensityModel, batch: int, s: Tensor | None, answer: Answer) -> Tensor:
    """Walk as cached sampling does, each feature of each pixel computed once; ConfigError for what it cannot step."""
    stepper, order_CHW = ModelStepper(model, batch, s), model.order()
    x_BCHW = torch.zeros((batch, *order_CHW.shape), dtype=torch.int64, device=next(model.parameters()).device)
    for row in range(stepper.height):
        stepper.enter(row)
        stepper.begin()
        for col in range(stepper.width):
            x_BCtt = x_BCHW[..., row :: stepper.height, col :: stepper.width]  # t×t tiles, one pixel of each
            for colour in range(stepper.calls):
                call = (row * stepper.width + col) * stepper.calls + colour
                sites = _sites(model.split.to_sites((order_CHW == call)[None])[0])
                levels_Bcn = answer(sites, stepper.parameters(col).flatten(-2)[..., None])
                x = model.split.to_sites(x_BCtt).clone()
                x[:, sites.colours] = levels_Bcn.unflatten(2, x.shape[2:])
                x_BCtt.copy_(model.split.from_sites(x))
                stepper.put(col, x_BCtt)
    return x_BCHW


def _sites(now_CHW: Tensor) -> Sites:
    """Return the sites that `now` marks; every site of a call draws the same colours, which are adjacent."""
    rows, cols = now_CHW.any(0).nonzero(as_tuple=True)
    colours = now_CHW[:, rows[0], cols[0]].nonzero()[:, 0]
    return Sites(rows, cols, slice(int(colours[0]), int(colours[-1]) + 1))
