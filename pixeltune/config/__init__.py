"""Configuration without torch: a frozen tree, one class a family, dotted keys.

trial_config   `TrialConfig`: the whole tree, from and to TOML, flat, hashed
sections       data, optimiser and training; `families`, `likelihoods`: model and likelihood by name
own_classes    families and likelihoods of the user's own, by import path
image_spec     `ImageSpec`: the form of the images
settings       KEY=VALUE on the command line
"""

from pixeltune.config.families import (
    FAMILIES,
    Causality,
    FamilyConfig,
    GatedConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelVAEConfig,
)
from pixeltune.config.image_spec import ImageSpec
from pixeltune.config.likelihoods import (
    LIKELIHOODS,
    BernoulliConfig,
    CategoricalConfig,
    LikelihoodConfig,
    LogisticMixtureConfig,
)
from pixeltune.config.own_classes import KINDS, stored
from pixeltune.config.sections import DataConfig, Layout, OptimConfig, TrainConfig
from pixeltune.config.settings import parse_setting
from pixeltune.config.trial_config import (
    DISCRIMINATORS,
    KEYS_NOT_HASHED,
    LOCATION_KEYS,
    Scalar,
    TrialConfig,
    require_workers,
)
from pixeltune.own_code import is_own

__all__ = [
    "DISCRIMINATORS",
    "FAMILIES",
    "KEYS_NOT_HASHED",
    "KINDS",
    "LIKELIHOODS",
    "LOCATION_KEYS",
    "BernoulliConfig",
    "CategoricalConfig",
    "Causality",
    "DataConfig",
    "FamilyConfig",
    "GatedConfig",
    "ImageSpec",
    "Layout",
    "LikelihoodConfig",
    "LogisticMixtureConfig",
    "OptimConfig",
    "PixelCNNConfig",
    "PixelCNNPPConfig",
    "PixelVAEConfig",
    "Scalar",
    "TrainConfig",
    "TrialConfig",
    "is_own",
    "parse_setting",
    "require_workers",
    "stored",
]
