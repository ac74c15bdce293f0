"""Models: causal networks, one file a family, and DensityModel, which joins one to a likelihood."""

from pixeltune.models.build import NETWORKS, assemble, build_model, seeded
from pixeltune.models.conditioning import NO_LABEL
from pixeltune.models.density import DensityModel, eval_mode
from pixeltune.models.pixelvae import PixelVAE

__all__ = ["NETWORKS", "NO_LABEL", "DensityModel", "PixelVAE", "assemble", "build_model", "eval_mode", "seeded"]
