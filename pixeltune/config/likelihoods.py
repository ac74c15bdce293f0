"""What each likelihood can be configured with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pixeltune.config.image_spec import ImageSpec
from pixeltune.config.section import Section
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from pixeltune.likelihoods import Likelihood


class LikelihoodConfig(Section):
    """Common to every likelihood."""

    name: str
    """the name in LIKELIHOODS, or `package.module:ConfigClass` for a subclass of your own."""

    has_indicators: ClassVar[bool] = False
    """Whether the likelihood is a mixture, whose indicator the tiles of a split image can share."""

    def likelihood_class(self) -> type[Likelihood]:
        """Return the likelihood of your own, as `likelihoods.LIKELIHOODS` has the built-in ones.

        Returns:
            A dataclass derived from `Likelihood`; its fields are `channels`, `levels`, `causality`, and the options of
            the configuration.
        """
        raise NotImplementedError(f"{type(self).__name__} must define likelihood_class")

    def require_form(self, form: ImageSpec) -> None:
        """Refuse images that this likelihood cannot describe.

        Args:
            form: The form of the images.

        Raises:
            ConfigError: It cannot describe them.
        """


class BernoulliConfig(LikelihoodConfig):
    """One logit a sub-pixel; two levels only."""

    name: Literal["bernoulli"] = "bernoulli"

    def require_form(self, form: ImageSpec) -> None:
        """Refuse images of other than two levels."""
        if form.levels != 2:
            raise ConfigError(
                f"likelihood bernoulli needs data of 2 levels, but the data has {form.levels}; "
                "set `data.binarise` for grey images, declare `levels` = 2 for a .npz of zeros and ones, "
                "or take categorical or logistic_mixture"
            )


class CategoricalConfig(LikelihoodConfig):
    """A softmax over the K levels (van den Oord et al. 2016, arXiv 1601.06759, §3.3)."""

    name: Literal["categorical"] = "categorical"


class LogisticMixtureConfig(LikelihoodConfig):
    """A discretised mixture of logistics (Salimans et al. 2017, arXiv 1701.05517, §2.1)."""

    name: Literal["logistic_mixture"] = "logistic_mixture"
    mixtures: int = Field(default=10, ge=1, le=256)
    """components M of the mixture."""

    has_indicators: ClassVar[bool] = True


LIKELIHOODS: dict[str, type[LikelihoodConfig]] = {
    "bernoulli": BernoulliConfig,
    "categorical": CategoricalConfig,
    "logistic_mixture": LogisticMixtureConfig,
}
