"""Sampling: new images of a model, by a named method. All methods draw the same images from the same noise.

`naive` is the definition, one network pass a step of `model.order()`. `cached` computes each feature of each pixel
once. `fixed_point` draws whole images again and again until they stay. Rounding differs between them: in float64 the
images are the same, in float32 a level on the edge between two may be the other one.
"""

from __future__ import annotations

import math
import time

import torch

from pixeltune.models import DensityModel, eval_mode
from pixeltune.sampling.cached import ModelStepper, RowSampler, cached
from pixeltune.sampling.drawing import Drawing, Given
from pixeltune.sampling.fixed_point import fixed_point
from pixeltune.sampling.gallery import GALLERY_SIDE, Picture, completions, gallery, labels_in_turn, upper_half
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.images import METHODS, complete, require_conditional, sample, why_not_conditional
from pixeltune.sampling.naive import naive

__all__ = [
    "GALLERY_SIDE",
    "METHODS",
    "Drawing",
    "Given",
    "ModelStepper",
    "Picture",
    "RowSampler",
    "cached",
    "complete",
    "completions",
    "fixed_point",
    "forecast",
    "gallery",
    "labels_in_turn",
    "naive",
    "require_conditional",
    "sample",
    "save_grid",
    "upper_half",
    "why_not_conditional",
]


def forecast(model: DensityModel, n: int, *, batch_size: int = 256) -> float:
    """Seconds that `sample` will take, from a first row drawn again; others take less where resolutions alternate."""
    batch, weight = min(n, batch_size), next(model.parameters())
    noise = model.noise(torch.Generator()).to(weight.device).expand(batch, -1, -1, -1)
    with eval_mode(model), torch.inference_mode():
        times = [time.perf_counter()]
        s = model.features(weight.new_zeros(batch, *model.form.shape))
        rows = RowSampler(model, Drawing(noise, s))
        for _ in range(3 if weight.device.type == "cuda" else 2):  # the second time, a GPU captures it
            rows.draw(0)
            int(rows.x_BCHW.sum())  # the value is waited for, also on a GPU
            times.append(time.perf_counter())
    once, again = times[1] - times[0], times[-1] - times[-2]
    return math.ceil(n / batch_size) * (once + rows.height * again)
