"""Likelihoods: network output θ to nats, to samples, and to the probabilities of all levels.

base                 `Likelihood`: the contract, with shapes and units
bernoulli            two levels
categorical          a softmax over all levels
logistic_mixture     discretised mixtures of logistics, with and without coupled colours
"""

from __future__ import annotations

from contextlib import nullcontext

from pixeltune.config import Causality, ImageSpec, LikelihoodConfig, is_own
from pixeltune.errors import ConfigError
from pixeltune.likelihoods.base import Likelihood
from pixeltune.likelihoods.bernoulli import Bernoulli
from pixeltune.likelihoods.categorical import Categorical
from pixeltune.likelihoods.logistic_mixture import LogisticMixture
from pixeltune.own_code import running

__all__ = ["LIKELIHOODS", "Bernoulli", "Categorical", "Likelihood", "LogisticMixture", "build_likelihood"]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "logistic_mixture": LogisticMixture,
}


def build_likelihood(
    config: LikelihoodConfig, *, form: ImageSpec, causality: Causality, coupled_tiles: int = 1
) -> Likelihood:
    """Build the likelihood that `config` names, bound to the data's colours and levels.

    Args:
        config: Name and options; the options are the fields of the likelihood.
        form: Channels, size and levels of the images.
        causality: Whether the network orders the colours of a pixel (SUBPIXEL) or the likelihood does (PIXEL).
        coupled_tiles: How many pixels, one a tile, it takes together.

    Raises:
        ConfigError: The likelihood cannot describe such images.
    """
    config.require_form(form)
    options = config.model_dump(exclude={"name"})
    if coupled_tiles > 1:
        options["tiles"] = coupled_tiles
    channels = form.channels * coupled_tiles
    with running(config.name, "building the likelihood") if is_own(config.name) else nullcontext():
        return _likelihood_class(config)(channels=channels, levels=form.levels, causality=causality, **options)


def _likelihood_class(config: LikelihoodConfig) -> type[Likelihood]:
    """Return a likelihood's class: from LIKELIHOODS, or the one that a configuration of the user's own names."""
    if config.name in LIKELIHOODS:
        return LIKELIHOODS[config.name]
    kind: object = config.likelihood_class()
    if not isinstance(kind, type) or not issubclass(kind, Likelihood):
        raise ConfigError(
            f"likelihood_class of {config.name} must return a subclass of pixeltune.likelihoods.Likelihood, but "
            f"returned {kind!r}"
        )
    return kind
