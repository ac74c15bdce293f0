"""Small models of every kind, some with strong dependencies between pixels and some that look ahead on purpose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixeltune.config import ImageSpec, TrialConfig
from pixeltune.models import DensityModel, build_model
from tests.support.model_kinds import model_settings


def tiny_config(family: str = "gated", likelihood: str = "categorical", *, seed: int = 3, **model: Any) -> TrialConfig:
    """Return a configuration of two layers of nine channels; `model` overrides."""
    settings = model_settings(family, **{"channels": 9, "layers": 2, "kernel_size": 3, "head_channels": 7} | model)
    return TrialConfig.build(
        {"data": {"name": "digits"}, "model": settings, "likelihood": {"name": likelihood}, "seed": seed}
    )


def tiny_model(
    family: str = "gated",
    likelihood: str = "categorical",
    *,
    shape: tuple[int, int, int] = (3, 5, 6),
    levels: int = 2,
    num_classes: int = 3,
    seed: int = 3,
    **model: Any,
) -> DensityModel:
    """Return a model in float64 and eval mode, bound to images (C, H, W)."""
    form = ImageSpec(*shape, levels=levels, num_classes=num_classes)
    return build_model(tiny_config(family, likelihood, seed=seed, **model), form).double().eval()


def sharp_model(
    family: str = "gated",
    likelihood: str = "categorical",
    *,
    shape: tuple[int, int, int] = (3, 3, 4),
    **model: Any,
) -> DensityModel:
    """Return a model in float32 whose pixels depend strongly on each other."""
    wide = {"channels": 12, "head_channels": 12, "seed": 0}
    return sharpened(tiny_model(family, likelihood, shape=shape, **(wide | model)).float())


def sharpened(model: DensityModel) -> DensityModel:
    """Enlarge the weights, so that pixels depend on each other strongly enough for a wrong sampler to show.

    Layers of normed weights start out strong: more would leave a few images with all of the probability.
    """
    factor = 1.2 if model.is_initialised_by_data else 2.5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model


class LooksAhead(nn.Module):
    """A network whose logits, one a sub-pixel, also see the sub-pixel so many tiles and columns further on.

    0 and 0 is the sub-pixel itself. For images of two levels and one colour, where neighbours are alike.
    """

    def __init__(self, network: nn.Module, *, tiles: int = 0, columns: int = 0) -> None:
        super().__init__()
        self.network, self.tiles, self.columns = network, tiles, columns

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        theta: Tensor = self.network(x, s)
        return theta + 4 * x.roll((-self.tiles, -self.columns), dims=(1, 3))


def leaking(model: DensityModel, *, tiles: int = 0, columns: int = 0) -> DensityModel:
    """Make the model's network leak, and return the model."""
    model.network = LooksAhead(model.network, tiles=tiles, columns=columns)
    return model


def random_levels(model: DensityModel, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.form.levels, (batch, *model.form.shape), generator=generator)


def all_images(model: DensityModel) -> Tensor:
    """Every image of the model's form, (K^(C·H·W), C, H, W)."""
    levels = torch.arange(model.form.levels)
    return torch.cartesian_prod(*[levels] * model.form.dims).reshape(-1, *model.form.shape)


def one_latent(model: DensityModel, batch: int) -> Tensor:
    """A z of each image, the same for all, (B, D): what is exact of a bound is p(x | z). D is 0 without a latent."""
    weight = next(model.parameters())
    return torch.randn(1, model.latent_dim, generator=torch.Generator().manual_seed(8)).to(weight).expand(batch, -1)


def exact_log_prob(model: DensityModel, x: Tensor, label: Tensor | None = None) -> Tensor:
    """log p(x), or log p(x | z) at `one_latent`."""
    return model.log_prob_given(x, label, one_latent(model, len(x)))


def exact_theta(model: DensityModel, x: Tensor, label: Tensor | None = None) -> Tensor:
    """θ of images of integer levels, at `one_latent`."""
    return model.parameters_of(model.scale(x), label, one_latent(model, len(x)))
