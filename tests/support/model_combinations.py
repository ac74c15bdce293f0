"""Every combination of what a model can be told: network × likelihood × tiles × labels × colours × levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pixeltune.config import FAMILIES, LIKELIHOODS, ImageSpec, TrialConfig
from tests.support.model_kinds import NETWORK_KINDS, model_settings
from tests.support.pairwise import cover

_ALSO = {
    "pixelcnn/simple": {"batch_norm": (False, True)},
    "pixelcnnpp": {"stages": (1, 2)},
    "pixelvae": {"latent_conditioning": ("bias", "map")},
}
"""A setting of some kinds alone that changes the way from a pixel, or from a latent, to θ."""


def _networks() -> Iterator[tuple[str, dict[str, Any]]]:
    for family, colour_order in NETWORK_KINDS:
        (key, values), *_ = [*_ALSO.get(family, {}).items(), ("colour_order", (colour_order,))]
        for value in values:
            name = f"{family} {colour_order}" + (f" {key}={value}" if key != "colour_order" else "")
            yield name, {"family": family, "colour_order": colour_order, key: value}


NETWORKS = dict(_networks())
TILES = {"whole": {}, "tiles": {"split": 2}, "coupled": {"split": 2, "split_coupling": "mixture"}}
CONDITIONING = ("none", "bias", "map")
COLOURS = (1, 3, 4)
LEVELS = (2, 17, 256)

FORM_FAULTS = {"without labels": {"num_classes": None}, "of nine rows": {"height": 9}}
MODEL_FAULTS: dict[str, dict[str, Any]] = {
    "one channel": {"channels": 1},
    "one head channel": {"head_channels": 1},
    "one layer": {"layers": 1},
    "two stages": {"stages": 2},
    "even kernel": {"kernel_size": 4},
    "batch norm": {"batch_norm": True},
    "label dropout": {"label_dropout": 0.5},
}
"""Wrong with some combinations, and no matter to others."""


@dataclass(frozen=True)
class Combination:
    """network: of NETWORKS. tiles: of TILES. fault: of FORM_FAULTS or MODEL_FAULTS, or empty."""

    network: str
    likelihood: str
    tiles: str
    conditioning: str
    colours: int
    levels: int
    fault: str = ""

    def __str__(self) -> str:
        fault = f", {self.fault}" if self.fault else ""
        labels = f"label {self.conditioning}"
        return f"{self.network}, {self.likelihood}, {self.tiles}, {labels}, C={self.colours}, K={self.levels}{fault}"

    @cached_property
    def model(self) -> dict[str, Any]:
        """The `model` section: two layers, eight channels."""
        told = {"channels": 8, "layers": 2, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 6}
        told |= NETWORKS[self.network] | TILES[self.tiles] | {"conditioning": self.conditioning}
        if self.family == "pixelvae":
            told |= {"latent_dim": 2, "encoder_channels": 4}
        return model_settings(**told | MODEL_FAULTS.get(self.fault, {}))

    @property
    def family(self) -> str:
        return NETWORKS[self.network]["family"].partition("/")[0]

    @property
    def form(self) -> ImageSpec:
        """4×6 pixels, or 8×8 where they are halved."""
        height, width = (8, 8) if NETWORKS[self.network].get("stages") == 2 else (4, 6)
        form = ImageSpec(self.colours, height, width, self.levels, num_classes=3)
        return replace(form, **FORM_FAULTS.get(self.fault, {}))

    def config(self) -> TrialConfig:
        """Raises ConfigError where it is refused before any data is seen."""
        likelihood = {"name": self.likelihood} | ({"mixtures": 3} if self.likelihood == "logistic_mixture" else {})
        return TrialConfig.build({"data": {"name": "digits"}, "model": self.model, "likelihood": likelihood, "seed": 3})

    def reasons(self) -> list[str]:
        """Words of the refusals that it deserves; none where it makes sense."""
        model, known, is_masked = self.model, FAMILIES[self.family].model_fields, " mask" in self.network
        split, stages = model.get("split", 1), model.get("stages", 1)
        variant = model.get("variant", "")
        rules = {
            "needs a likelihood that is joint over the colours": self.tiles == "coupled" and is_masked,
            "needs likelihood logistic_mixture": self.tiles == "coupled" and self.likelihood != "logistic_mixture",
            "needs data of 2 levels": self.likelihood == "bernoulli" and self.levels > 2,
            "needs labelled data": self.conditioning != "none" and self.form.num_classes is None,
            "height and width must divide by": self.form.height % (split * 2 ** (stages - 1)) != 0
            or self.form.width % (split * 2 ** (stages - 1)) != 0,
            "`model.channels` must be at least": is_masked and model["channels"] < self.colours,
            "`model.head_channels` must be 0 or at least": is_masked and model.get("head_channels", 9) < self.colours,
            'needs model.variant = "simple"': self.fault == "batch norm" and self.family == "pixelcnn" and not variant,
            "needs model.stages = 1": stages > 1 and bool(variant),
            "needs model.layers of at least 2": variant == "nin" and model["layers"] < 2,
            "must be odd": model.get("kernel_size", 3) % 2 == 0,
            "needs a model.conditioning of bias or map": self.fault == "label dropout" and self.conditioning == "none",
            "unknown key": not model.keys() <= known.keys(),
        }
        return [words for words, holds in rules.items() if holds]


def product(network: str | None = None, *, faults: Iterable[str] = ("",)) -> Iterator[Combination]:
    """Every combination, or those of one network; without a fault unless told."""
    networks = NETWORKS if network is None else (network,)
    axes = (networks, LIKELIHOODS, TILES, CONDITIONING, COLOURS, LEVELS, faults)
    return itertools.starmap(Combination, itertools.product(*axes))


def covering(strength: int) -> list[Combination]:
    """Few combinations that make sense, among which are any `strength` choices that go together; always the same."""
    sensible = {c: (c.network, c.likelihood, c.tiles, c.conditioning, c.colours, c.levels) for c in product()}
    return cover({c: choices for c, choices in sensible.items() if not c.reasons()}, strength)
