"""Ancestral sampling in the order of the model: one full network pass a call, for any family."""

from __future__ import annotations

from torch import Tensor

from pixeltune.models import DensityModel
from pixeltune.sampling.calls import Sites, full_passes


def naive(model: DensityModel, noise_BNhw: Tensor, s: Tensor | None = None) -> Tensor:
    """Levels x_BCHW (int64) as a fixed function of the weights, the noise and the features s of label and latent."""

    def answer(sites: Sites, theta: Tensor) -> Tensor:
        levels_BCn1 = model.likelihood.sample(theta, noise_BNhw[..., sites.rows, sites.cols, None])
        return levels_BCn1[:, sites.colours, :, 0]

    return full_passes(model, len(noise_BNhw), s, answer)
