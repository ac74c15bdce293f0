"""Ancestral sampling that computes each feature of each pixel once."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.config import Causality
from pixeltune.models import DensityModel
from pixeltune.sampling.stepping import Stepper


def cached(model: DensityModel, noise_BNHW: Tensor, label_B: Tensor | None = None) -> Tensor:
    """The images of `naive`."""
    B, (C, H, W) = len(noise_BNHW), model.form.shape
    s, is_joint = model.split.s, model.causality is Causality.PIXEL
    h, w = H // s, W // s
    x_BCHW = noise_BNHW.new_zeros((B, C, H, W), dtype=torch.int64)
    scaled = model.scale(x_BCHW)
    stepper = Stepper(
        model.network,
        model.split.stack(scaled),
        None if model.conditioning is None else model.conditioning(label_B, scaled),
        colours=1 if is_joint else C,
    )
    for row in range(h):
        stepper.begin(row)
        for col in range(w):
            here = (..., slice(row, None, h), slice(col, None, w))
            for colour in range(1 if is_joint else C):
                theta = model.split.place(stepper.parameters(col)[..., None, None], model.likelihood.num_params)
                drawn = model.likelihood.sample(theta, noise_BNHW[here])
                if is_joint:
                    x_BCHW[here] = drawn
                else:
                    x_BCHW[here][:, colour] = drawn[:, colour]
                stepper.put(col, model.split.stack(model.scale(x_BCHW[here]))[..., 0, 0])
    return x_BCHW
