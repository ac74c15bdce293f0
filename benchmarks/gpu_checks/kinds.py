"""Small models of every kind: family and structure × likelihood, and what a model can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixeltune.config import FAMILIES, LIKELIHOODS, ImageSpec, TrialConfig
from pixeltune.errors import ConfigError
from pixeltune.models import DensityModel, build_model

STRUCTURES: dict[str, tuple[dict[str, Any], ...]] = {
    "pixelcnn": ({}, {"variant": "simple", "batch_norm": True}, {"colour_order": "likelihood"}),
    "gated": ({}, {"colour_order": "likelihood"}, {"kernel_size": 5, "head_channels": 0}),
    "pixelcnnpp": (
        {"stages": 3, "layers": 1},
        {"stages": 2, "layers": 1, "nonlinearity": "elu"},
        {"stages": 1, "variant": "nin"},
        {"stages": 1, "variant": "autoregressive_channel"},
        {"stages": 1, "variant": "plain", "nonlinearity": "relu"},
    ),
    "pixelvae": ({}, {"latent_conditioning": "map"}),
}
"""What changes the way from a pixel to θ; a family that is not here is taken as it comes."""

TOLD: tuple[dict[str, Any], ...] = (
    {"split": 2},
    {"split": 2, "split_coupling": "mixture"},
    {"conditioning": "bias"},
    {"conditioning": "map", "split": 2},
)
"""With one likelihood; what does not go together is left out."""

NARROW = {
    "channels": 8,
    "layers": 2,
    "kernel_size": 3,
    "first_kernel_size": 3,
    "head_channels": 6,
    "latent_dim": 3,
    "encoder_channels": 4,
    "dropout": 0.0,
}
CLASSES = 3


@dataclass(frozen=True)
class Kind:
    """One model. form: three colours, and rows enough for each program of the sampler to come three times."""

    config: TrialConfig
    form: ImageSpec

    @property
    def name(self) -> str:
        """What tells it from the others of its structure."""
        model = self.config.model
        told = [f"{key}={getattr(model, key)}" for settings in TOLD for key in settings]
        default = [f"{key}={type(model).model_fields[key].default}" for settings in TOLD for key in settings]
        return " ".join([self.config.likelihood.name, *dict.fromkeys(t for t in told if t not in default)])

    def model(self) -> DensityModel:
        """In float64 on the CPU, its weights large enough for a wrong feature to show."""
        built = build_model(self.config, self.form).double()
        with torch.no_grad():
            for parameter in built.parameters():
                parameter *= 1.5
            for module in built.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for buffer in (module.running_mean, module.running_var):
                        buffer.copy_(torch.linspace(0.5, 1.5, len(buffer)))
        if built.is_initialised_by_data:
            built.initialise(self.levels(8))
        return built

    def levels(self, count: int, seed: int = 0) -> Tensor:
        """Images (N, C, H, W) of random levels."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.form.levels, (count, *self.form.shape), generator=generator)


def structures(is_quick: bool) -> Iterator[tuple[str, list[Kind]]]:
    """Each structure's name and its kinds: the first of a family with each likelihood, the others with the last one.

    Of toys, the first alone, with the last likelihood.
    """
    for family in FAMILIES:
        for index, structure in enumerate(STRUCTURES.get(family, ({},))[: 1 if is_quick else None]):
            likelihoods = list(LIKELIHOODS)[-1 if index or is_quick else 0 :]
            settings = [(name, {}) for name in likelihoods] + [(likelihoods[-1], told) for told in TOLD]
            kinds = [_kind(family, name, structure | told, is_quick) for name, told in settings]
            shown = " ".join(f"{key}={value}" for key, value in structure.items())
            yield f"{family} {shown}".strip(), [kind for kind in kinds if kind is not None]


def _kind(family: str, likelihood: str, told: dict[str, Any], is_quick: bool) -> Kind | None:
    """None for what does not go together."""
    known = FAMILIES[family].model_fields
    model = {"family": family} | {key: value for key, value in NARROW.items() if key in known} | told
    settings = {"name": likelihood} | ({"mixtures": 3} if likelihood == "logistic_mixture" else {})
    tiles = told.get("split", 1)
    # Four rows make a program's period at three resolutions.
    form = ImageSpec(3, (4 if is_quick else 12) * tiles, 4 * tiles, 2 if likelihood == "bernoulli" else 17, CLASSES)
    try:
        config = TrialConfig.build({"data": {"name": "array"}, "model": model, "likelihood": settings, "seed": 1})
        config.model.require_form(form)
        config.likelihood.require_form(form)
    except ConfigError:
        return None
    return Kind(config, form)
