"""Models: causal networks, one file a family, and `DensityModel`, which joins one to a likelihood.

    density                              `DensityModel`: log-likelihoods, losses, the order of sub-pixels
build                                a model from a configuration and the form of the images
gated, pixelcnn, pixelcnnpp, pixelvae     the families
layers, blocks, weight_norm, dropout, conditioning, inputs     what they are made of
split                                images in tiles that are drawn in parallel
exact                                the exact log-likelihood of all images, for small forms
"""

from pixeltune.models.build import NETWORKS, assemble, build_model, seeded
from pixeltune.models.conditioning import NO_LABEL
from pixeltune.models.density import DensityModel, eval_mode
from pixeltune.models.pixelvae import PixelVAE

__all__ = ["NETWORKS", "NO_LABEL", "DensityModel", "PixelVAE", "assemble", "build_model", "eval_mode", "seeded"]
