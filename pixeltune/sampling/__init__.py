"""Sampling: new images of a model, by a named method. All methods draw the same images from the same noise.

`naive` is the definition, one network pass a step of `model.order()`. `cached` computes each feature of each pixel
once. `fixed_point` draws whole images again and again until they stay. Rounding differs between them: in float64 the
images are the same, in float32 a level on the edge between two may be the other one.
"""

from __future__ import annotations

from pixeltune.sampling.cached import ModelStepper, RowSampler, cached
from pixeltune.sampling.fixed_point import fixed_point
from pixeltune.sampling.gallery import GALLERY_SIDE, Gallery, completions, gallery, labels_in_turn, upper_half
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.images import METHODS, complete, require_conditional, sample, why_not_conditional
from pixeltune.sampling.naive import naive
from pixeltune.sampling.request import Observed, SampleRequest
from pixeltune.sampling.speed import SPEED_BATCH, forecast, images_per_second

__all__ = [
    "GALLERY_SIDE",
    "METHODS",
    "SPEED_BATCH",
    "Gallery",
    "ModelStepper",
    "Observed",
    "RowSampler",
    "SampleRequest",
    "cached",
    "complete",
    "completions",
    "fixed_point",
    "forecast",
    "gallery",
    "images_per_second",
    "labels_in_turn",
    "naive",
    "require_conditional",
    "sample",
    "save_grid",
    "upper_half",
    "why_not_conditional",
]
