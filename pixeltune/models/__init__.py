"""Models: causal networks, one file a family, and DensityModel, which joins one to a likelihood."""

from pixeltune.models.density import NETWORKS, DensityModel, build_model, eval_mode, seeded

__all__ = ["NETWORKS", "DensityModel", "build_model", "eval_mode", "seeded"]
