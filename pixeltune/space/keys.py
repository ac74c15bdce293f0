"""Distributions and keys: what a value must lie in, which keys a trial has, the corners of a space.

Optuna is imported only where there is a distribution: the space of one configuration that `pixeltune train` makes has
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pixeltune.config import DISCRIMINATORS, Scalar, TrialConfig
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

DISCRIMINATOR_KEYS = tuple(f"{section}.{name}" for section, name in DISCRIMINATORS.items())
"""Keys that choose a class, and with it which other keys exist."""


def ask(trial: BaseTrial, key: str, distribution: BaseDistribution) -> Scalar:
    """Draw one key."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, CategoricalDistribution):
        choice: Scalar = trial.suggest_categorical(key, distribution.choices)
        return choice
    raise ConfigError(f"vary[{key!r}] must be an Int, Float or Categorical distribution, but got {distribution!r}")


def require_distribution(key: str, distribution: object) -> None:
    """Refuse what is none of Optuna's."""
    from optuna.distributions import BaseDistribution

    if not isinstance(distribution, BaseDistribution):
        raise ConfigError(f"vary[{key!r}] must be an Optuna distribution, but got {distribution!r}")


def choice_of_one(value: Scalar) -> BaseDistribution:
    """A key that is fixed wherever it exists."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution((value,))


def is_choice(distribution: BaseDistribution) -> bool:
    """Whether the values have no order."""
    from optuna.distributions import CategoricalDistribution

    return isinstance(distribution, CategoricalDistribution)


def whole_numbers(distribution: BaseDistribution) -> range:
    """Every value of a range of whole numbers; of any other distribution, none."""
    from optuna.distributions import IntDistribution

    if not isinstance(distribution, IntDistribution):
        return range(0)
    return range(distribution.low, distribution.high + 1, distribution.step)


def _ends(distribution: BaseDistribution) -> tuple[Scalar, ...]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return tuple(dict.fromkeys((distribution.low, distribution.high)))


def contains(distribution: BaseDistribution, value: Scalar) -> bool:
    """Whether a trial could draw `value`."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def nearest(distribution: BaseDistribution, value: Scalar) -> Scalar:
    """The end of the range next to `value`; of choices, the first."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(distribution, IntDistribution | FloatDistribution) and isinstance(value, int | float):
        return min((distribution.low, distribution.high), key=lambda end: abs(end - value))
    return _ends(distribution)[0]


def corners_of(
    base: TrialConfig, rest: list[tuple[str, BaseDistribution]], drawn: dict[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    """Every combination of extreme values of the keys in `rest`, after those in `drawn`."""
    if not rest:
        yield drawn
        return
    (key, distribution), later = rest[0], rest[1:]
    if not key_exists(base, key, drawn):
        yield from corners_of(base, later, drawn)
        return
    for value in _ends(distribution):
        yield from corners_of(base, later, drawn | {key: value})


def keys_of(corners: Iterator[dict[str, Scalar]]) -> set[str]:
    """The keys that some corner has."""
    return {key for corner in corners for key in corner}


def key_exists(base: TrialConfig, key: str, drawn: Mapping[str, Scalar]) -> bool:
    """Whether a trial has `key`, given the classes among the keys drawn so far."""
    chosen = {name: value for name, value in drawn.items() if name in DISCRIMINATOR_KEYS}
    return key in (base.override(chosen) if chosen else base).flat()


def discriminators_first(vary: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """The keys in an order in which each is drawn after those that decide whether it exists."""
    return dict(sorted(vary.items(), key=lambda item: item[0] not in DISCRIMINATOR_KEYS))


def short_name(key: str) -> str:
    """What tables call a key: `layers` of model.layers, `likelihood` of likelihood.name."""
    section, _, name = key.rpartition(".")
    return section if name == "name" else name
