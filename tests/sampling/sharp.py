"""Small models whose pixels depend strongly on each other."""

from __future__ import annotations

from typing import Any

import torch
from kinds import model_settings

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.models import DensityModel, build_model


def tiny_model(
    family: str = "gated",
    likelihood: str = "categorical",
    *,
    shape: tuple[int, int, int] = (3, 3, 4),
    levels: int = 2,
    **model: Any,
) -> DensityModel:
    settings = model_settings(family, **{"channels": 12, "layers": 2, "kernel_size": 3, "head_channels": 12} | model)
    sections = {"data": {"name": "digits"}, "model": settings, "likelihood": {"name": likelihood}}
    return sharpened(build_model(TrialConfig.build(sections), ImageSpec(*shape, levels=levels, num_classes=3)))


def sharpened(model: DensityModel) -> DensityModel:
    """Larger weights, so that pixels depend on each other strongly enough for a wrong sampler to show.

    Layers of normed weights start out strong: more would leave a few images with all of the probability.
    """
    factor = 1.2 if model.is_initialised_by_data else 2.5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model
