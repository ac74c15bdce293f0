"""Ancestral sampling by its definition: one pass of the whole network for each step of the model's order."""

from __future__ import annotations

from torch import Tensor

from pixeltune.models import DensityModel
from pixeltune.sampling.ancestral import Sites, full_passes
from pixeltune.sampling.request import SampleRequest


def naive(model: DensityModel, drawing: SampleRequest) -> Tensor:
    """Draw levels x_BCHW (int64) as a fixed function of the weights and the drawing."""
    given = drawing.given
    if given is not None:  # as the likelihood sees images
        x, known = model.split.to_sites(given.x_BCHW), model.split.to_sites(given.known_CHW[None])[0]

    def answer(sites: Sites, theta: Tensor) -> Tensor:
        noise_BNn1 = drawing.noise_BNhw[..., sites.rows, sites.cols, None]
        levels_Bcn = model.likelihood.sample(theta, noise_BNn1, drawing.temperature)[:, sites.colours, :, 0]
        drawing.advance(1)
        if given is None:
            return levels_Bcn
        here = (sites.colours, sites.rows, sites.cols)
        return x[:, *here].where(known[here], levels_Bcn)

    return full_passes(model, len(drawing), drawing.s, answer)
