"""Models: causal networks, one file a family, and DensityModel, which joins one to a likelihood."""

from pixeltune.models.conditioning import NO_LABEL
from pixeltune.models.density import NETWORKS, DensityModel, assemble, build_model, eval_mode, seeded

__all__ = ["NETWORKS", "NO_LABEL", "DensityModel", "assemble", "build_model", "eval_mode", "seeded"]
