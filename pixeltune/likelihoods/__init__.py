"""Likelihoods: network output to nats, to samples, to the probabilities of all levels."""

from __future__ import annotations

from pixeltune.config import Causality, ImageForm, LikelihoodConfig
from pixeltune.likelihoods.base import Likelihood
from pixeltune.likelihoods.bernoulli import Bernoulli
from pixeltune.likelihoods.categorical import Categorical
from pixeltune.likelihoods.logistic_mixture import LogisticMixture

__all__ = ["LIKELIHOODS", "Bernoulli", "Categorical", "Likelihood", "LogisticMixture", "build_likelihood"]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "logistic_mixture": LogisticMixture,
}


def build_likelihood(config: LikelihoodConfig, *, form: ImageForm, causality: Causality) -> Likelihood:
    """The likelihood that `config` names, bound to the data's colours and levels; the config's options are its fields.

    Raises ConfigError where it cannot describe such images.
    """
    config.require_form(form)
    options = config.model_dump(exclude={"name"})
    return LIKELIHOODS[config.name](channels=form.channels, levels=form.levels, causality=causality, **options)
