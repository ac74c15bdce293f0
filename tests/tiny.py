"""Small models of every kind, for tests."""

from __future__ import annotations

from typing import Any

import torch
from kinds import model_settings

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.models import DensityModel, build_model


def tiny_config(family: str = "gated", likelihood: str = "categorical", **model: Any) -> TrialConfig:
    """Two layers, nine channels; `model` overrides."""
    settings = model_settings(family, **{"channels": 9, "layers": 2, "kernel_size": 3, "head_channels": 7} | model)
    return TrialConfig.build(
        {"data": {"name": "digits"}, "model": settings, "likelihood": {"name": likelihood}, "seed": 3}
    )


def tiny_model(
    family: str = "gated",
    likelihood: str = "categorical",
    *,
    shape: tuple[int, int, int] = (3, 5, 6),
    levels: int = 2,
    **model: Any,
) -> DensityModel:
    """A model in float64 and eval mode, bound to images (C, H, W)."""
    form = ImageSpec(*shape, levels=levels, num_classes=3)
    return build_model(tiny_config(family, likelihood, **model), form).double().eval()


def random_levels(model: DensityModel, batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.form.levels, (batch, *model.form.shape), generator=generator)


def all_images(model: DensityModel) -> torch.Tensor:
    """Every image of the model's form, (K^(C·H·W), C, H, W)."""
    levels = torch.arange(model.form.levels)
    return torch.cartesian_prod(*[levels] * model.form.dims).reshape(-1, *model.form.shape)


def one_latent(model: DensityModel, batch: int) -> torch.Tensor:
    """A z of each image, the same for all, (B, D): what is exact of a bound is p(x | z). D is 0 without a latent."""
    weight = next(model.parameters())
    return torch.randn(1, model.latent_dim, generator=torch.Generator().manual_seed(8)).to(weight).expand(batch, -1)


def exact_log_prob(model: DensityModel, x: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """log p(x), or log p(x | z) at `one_latent`."""
    return model.log_prob_given(x, label, one_latent(model, len(x)))


def exact_theta(model: DensityModel, x: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """θ of images of integer levels, at `one_latent`."""
    return model.parameters_of(model.scale(x), label, one_latent(model, len(x)))
