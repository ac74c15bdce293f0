"""A model from its configuration: a network and a likelihood, each by name, and what joins them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from pixeltune.config import FamilyConfig, ImageSpec, TrialConfig, is_own
from pixeltune.errors import ConfigError
from pixeltune.likelihoods import Likelihood, build_likelihood
from pixeltune.models.conditioning import num_label_features
from pixeltune.models.density import DensityModel
from pixeltune.models.gated import GatedPixelCNN
from pixeltune.models.pixelcnn import PixelCNN
from pixeltune.models.pixelcnnpp import PixelCNNPP
from pixeltune.models.pixelvae import PixelVAE
from pixeltune.own_code import running

NETWORKS: dict[str, type[nn.Module]] = {
    "pixelcnn": PixelCNN,
    "gated": GatedPixelCNN,
    "pixelcnnpp": PixelCNNPP,
    "pixelvae": GatedPixelCNN,
}
"""The causal network of each family."""


def build_model(config: TrialConfig, form: ImageSpec | None = None) -> DensityModel:
    """Build the model that `config` describes, its initial weights fixed by `config.seed` alone.

    Args:
        config: The configuration of one trial: family, likelihood, data and seed.
        form: Channels, height, width, levels and classes of the images; None reads them from the data.

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: Model, likelihood and data do not fit.
        DataError: `form` is None and the data cannot be read.
    """
    if form is None:
        # Only here, so that a model whose form is known builds without any data code.
        from pixeltune.data import resolve

        form = resolve(config).data.form
    config.model.require_form(form)
    likelihood = build_likelihood(
        config.likelihood, form=form, causality=config.model.causality, coupled_tiles=config.model.coupled_tiles
    )
    own = running(config.model.family, "building the network") if is_own(config.model.family) else nullcontext()
    with seeded(config.seed_for("init")), own:
        return assemble(config, form, likelihood, network_class=_network_class(config.model))


def _network_class(config: FamilyConfig) -> type[nn.Module]:
    """Return the network of a family: from NETWORKS, or the one that a family of the user's own names."""
    if config.family in NETWORKS:
        return NETWORKS[config.family]
    kind: object = config.network_class()
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise ConfigError(
            f"network_class of {config.family} must return a subclass of torch.nn.Module, but returned {kind!r}"
        )
    return kind


def assemble(
    config: TrialConfig, form: ImageSpec, likelihood: Likelihood, *, network_class: type[nn.Module]
) -> DensityModel:
    """Build a model around a network of this class, of the size that form, likelihood, labels and latents ask for."""
    network = network_class(
        config.model,
        in_channels=form.channels * config.model.split**2,
        num_params=likelihood.num_params * config.model.split**2 // config.model.coupled_tiles,
        condition_features=num_label_features(config.model, form) + config.model.latent_features,
    )
    kind = PixelVAE if config.model.latent_features else DensityModel
    return kind(network, likelihood, config=config, form=form)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the CPU's random numbers from `seed`; global state is untouched (`torch.manual_seed` would re-seed CUDA)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
