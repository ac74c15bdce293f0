"""Priors: where a user expects the best value of a key, for the sampler TPE.

A prior multiplies what the sampler maximises by π(x)^(confidence / n), after n trials with a result (πBO; Hvarfner et
al. 2022, arXiv 2204.11051), so that it fades as results arrive. π is a density on the scale on which the key is
searched: of the logarithm where the range is logarithmic. A tenth of it is uniform over the range, so that a narrow
prior in the wrong place is overcome too.
"""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from pixeltune.config import Scalar
from pixeltune.errors import ConfigError
from pixeltune.space.first_configurations import drawable, require_varied
from pixeltune.space.keys import range_text, value_text
from pixeltune.space.parts import real_number
from pixeltune.space.sampler_names import SAMPLERS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

CONFIDENCE = 10.0
"""The number of trials with a result after which a prior counts as it is; after ten times as many, its tenth root."""

UNIFORM_SHARE = 0.1
"""The part of each prior that is uniform: without it a normal prior ten deviations away would need hundreds of trials
to be overcome."""


class _NumberPrior(ABC):
    """A prior of a number that is normal on a scale of its own: that of the value, or of its logarithm."""

    is_log: ClassVar[bool]

    @property
    @abstractmethod
    def centre(self) -> float:
        """Return the expected value."""

    @property
    @abstractmethod
    def _normal(self) -> NormalDist: ...

    def _at(self, value: float) -> float:
        """Return a value on the scale of the prior."""
        return math.log(value) if self.is_log else value

    def log_density(self, value: Any, is_log: bool) -> float:
        """Return the logarithm of the density at a value.

        Args:
            value: A value of the key.
            is_log: Whether the density is that of the value's logarithm.
        """
        z = (self._at(value) - self._normal.mean) / self._normal.stdev
        log = -z * z / 2 - math.log(self._normal.stdev * math.sqrt(2 * math.pi))
        return log if is_log == self.is_log else log + math.log(value) * (1 if is_log else -1)

    def mass(self, low: float, high: float) -> float:
        """Return the probability of a range.

        Args:
            low: Its lower end.
            high: Its upper end.
        """
        return self._normal.cdf(self._at(high)) - self._normal.cdf(self._at(low))

    def quantile(self, unit: float, low: float, high: float) -> float:
        """Return a quantile of the prior, cut at the ends of a range.

        Args:
            unit: The share below the quantile, 0 to 1.
            low: The lower end of the range.
            high: Its upper end.
        """
        below, above = self._normal.cdf(self._at(low)), self._normal.cdf(self._at(high))
        share = below + unit * (above - below)
        if not 0 < share < 1:
            return low if share <= 0 else high
        found = self._normal.inv_cdf(share)
        return min(max(math.exp(found) if self.is_log else found, low), high)

    def require_fit(self, key: str, distribution: BaseDistribution) -> None:
        """Refuse choices, a centre outside the range, and for the logarithm ranges that reach 0.

        Args:
            key: The key of the prior.
            distribution: What it varies over.

        Raises:
            ConfigError: The prior does not fit.
        """
        from optuna.distributions import FloatDistribution, IntDistribution

        name = type(self).__name__
        if not isinstance(distribution, IntDistribution | FloatDistribution):
            raise ConfigError(
                f"prior[{key!r}] must be ChoiceWeights, because {range_text(distribution)} are choices, but got {name}"
            )
        if not distribution.low <= self.centre <= distribution.high:
            centre = "median" if self.is_log else "mean"
            raise ConfigError(
                f"prior[{key!r}] must have its {centre} in {range_text(distribution)}, but got "
                f"{value_text(self.centre)}"
            )
        if self.is_log and distribution.low <= 0:
            raise ConfigError(
                f"prior[{key!r}] must be of a range above 0 to be LogNormal, but got {range_text(distribution)}; "
                "take Normal"
            )


@dataclass(frozen=True)
class LogNormal(_NumberPrior):
    """A prior of a number whose logarithm is normal: the best value is the median, give or take a factor.

    Args:
        median: The expected value, in units of the key.
        factor: Two of three best values are expected from median / factor to median × factor.
        confidence: The prior has the exponent confidence / n after n trials with a result.

    Raises:
        ConfigError: `median` or `confidence` is not a finite number above 0, or `factor` is not one above 1.
    """

    median: float
    factor: float
    confidence: float = CONFIDENCE
    is_log: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _settle(self, median=0.0, factor=1.0, confidence=0.0)

    @property
    def centre(self) -> float:
        """Return the median."""
        return self.median

    @property
    def _normal(self) -> NormalDist:
        return NormalDist(math.log(self.median), math.log(self.factor))


@dataclass(frozen=True)
class Normal(_NumberPrior):
    """A prior of a number: the best value is the mean, give or take a deviation.

    Args:
        mean: The expected value, in units of the key.
        deviation: The standard deviation, in the same units.
        confidence: The prior has the exponent confidence / n after n trials with a result.

    Raises:
        ConfigError: `mean` is not finite, or `deviation` or `confidence` is not a finite number above 0.
    """

    mean: float
    deviation: float
    confidence: float = CONFIDENCE
    is_log: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _settle(self, mean=-math.inf, deviation=0.0, confidence=0.0)

    @property
    def centre(self) -> float:
        """Return the mean."""
        return self.mean

    @property
    def _normal(self) -> NormalDist:
        return NormalDist(self.mean, self.deviation)


@dataclass(frozen=True)
class ChoiceWeights:
    """A prior of a choice: how probable each one is to be the best, in any unit.

    Args:
        weights: Choice → weight above 0; every choice of the key has one.
        confidence: The prior has the exponent confidence / n after n trials with a result.

    Raises:
        ConfigError: A weight or `confidence` is not a finite number above 0. A weight of 0 would never be overcome by
            results.
    """

    weights: Mapping[Scalar, float]
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise ConfigError(f"ChoiceWeights must map choices to weights, but got {self.weights!r}")
        for choice, weight in self.weights.items():
            _number(f"the weight of {value_text(choice)}", weight, 0.0)
        _settle(self, confidence=0.0)

    def probability(self, choice: Scalar) -> float:
        """Return the share of a choice in the sum of the weights.

        Args:
            choice: One with a weight.
        """
        return self.weights[choice] / sum(self.weights.values())

    def require_fit(self, key: str, distribution: BaseDistribution) -> None:
        """Refuse ranges, unknown choices, and choices without a weight.

        Args:
            key: The key of the prior.
            distribution: What it varies over.

        Raises:
            ConfigError: The prior does not fit.
        """
        from optuna.distributions import CategoricalDistribution

        if not isinstance(distribution, CategoricalDistribution):
            raise ConfigError(
                f"prior[{key!r}] must be Normal or LogNormal, because {range_text(distribution)} is a range, but got "
                "ChoiceWeights"
            )
        for choice in self.weights:
            try:
                drawable(distribution, choice)
            except ValueError as error:
                raise ConfigError(f"prior[{key!r}] must weigh choices {error}") from None
        lacking = [choice for choice in distribution.choices if choice not in self.weights]
        if lacking:
            raise ConfigError(
                f"prior[{key!r}] must have a weight for every choice, but {value_text(lacking[0])} has none"
            )


Prior = LogNormal | Normal | ChoiceWeights
_KINDS: dict[str, type[LogNormal] | type[Normal] | type[ChoiceWeights]] = {
    kind.__name__: kind for kind in (LogNormal, Normal, ChoiceWeights)
}


def require_priors(sampler: str, prior: Mapping[str, Prior], vary: Mapping[str, BaseDistribution]) -> dict[str, Prior]:
    """Return the priors of a search.

    Raises:
        ConfigError: The sampler cannot use a prior, a key is not varied, or a prior does not fit its distribution.
    """
    if not isinstance(prior, Mapping):
        raise ConfigError(
            f'prior must map keys to priors, such as {{"optim.lr": LogNormal(1e-3, 2)}}, but got {prior!r}'
        )
    if prior and not SAMPLERS[sampler].takes_priors:
        able = ", ".join(name for name, kind in SAMPLERS.items() if kind.takes_priors)
        raise ConfigError(
            f"a search with a prior must have the sampler {able}, but got {sampler}; leave out one of them"
        )
    require_varied("prior", prior, vary)
    for key, each in prior.items():
        if not isinstance(each, Prior):
            raise ConfigError(f"prior[{key!r}] must be {', '.join(_KINDS)}, but got {each!r}")
        each.require_fit(key, vary[key])
    return dict(prior)


def prior_text(prior: Prior) -> str:
    """Return a prior as `parse_prior` reads it, such as `LogNormal(0.001, 2)`; a default confidence is left out."""
    values = [_argument(getattr(prior, item.name)) for item in fields(prior) if item.name != "confidence"]
    values += [] if prior.confidence == CONFIDENCE else [f"confidence={value_text(prior.confidence)}"]
    return f"{type(prior).__name__}({', '.join(values)})"


def parse_prior(text: str) -> Prior:
    """Return a prior that is written as in a search file, such as `LogNormal(1e-3, 2, confidence=20)`.

    Raises:
        ConfigError: It is none.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _KINDS:
            raise ValueError("no prior")
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        return _KINDS[call.func.id](*positional, **named)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(
            f"a prior must be written as LogNormal(MEDIAN, FACTOR), Normal(MEAN, DEVIATION) or "
            f"ChoiceWeights({{CHOICE: WEIGHT}}), each also with confidence=TRIALS, but got {text[:80]!r}"
        ) from None


def _argument(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{choice!r}: {value_text(weight)}" for choice, weight in value.items()) + "}"
    return value_text(value)


def _settle(prior: Prior, **above: float) -> None:
    for name, least in above.items():
        number = _number(f"{type(prior).__name__}.{name}", getattr(prior, name), least)
        object.__setattr__(prior, name, number)


def _number(name: str, value: object, least: float) -> float:
    number = real_number(name, value)
    if not least < number < math.inf:  # as NaN is not
        above = f" above {least:g}" if math.isfinite(least) else ""
        raise ConfigError(f"{name} must be a finite number{above}, but got {number}")
    return float(number)
