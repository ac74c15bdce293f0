"""Distributions and keys: the range of a value, which keys a trial has, the corners of a space.

Optuna is imported only where there is a distribution: the space of one configuration that `pixeltune train` makes has
none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args

from pixeltune.config import DISCRIMINATORS, KINDS, Scalar, TrialConfig
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


def normal_distribution(key: str, distribution: BaseDistribution) -> BaseDistribution:
    """Return a distribution whose choices have the type of the key's field: 0.0 for a 0 among learning rates.

    Rows hold the field's type, so that a choice of another one would not be found again. A choice counts once.
    """
    from optuna.distributions import CategoricalDistribution

    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    choices: list[Any] = []
    for choice in distribution.choices:
        normal = _normal(key, choice)
        if not any(_are_alike(normal, other) for other in choices):
            choices.append(normal)
    is_normal = len(choices) == len(distribution.choices) and all(map(_are_alike, choices, distribution.choices))
    return distribution if is_normal else CategoricalDistribution(choices)


def _are_alike(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _normal(key: str, value: Any) -> Any:
    """Return a value as the key's field holds it, a number of numpy as Python's; what does not fit is left alone."""
    if not isinstance(value, str) and type(value) not in (bool, int, float) and hasattr(value, "item"):
        value = value.item()
    is_float = float in _types_of(key) and int not in _types_of(key)
    return float(value) if is_float and type(value) is int else value


def _types_of(key: str) -> frozenset[object]:
    """Return the types that a dotted key may have, in any known family; none for an unknown key."""
    section, _, name = key.rpartition(".")
    if section in KINDS:
        kinds: Sequence[Any] = KINDS[section].classes()
    else:
        field = TrialConfig.model_fields.get(section)
        kinds = [TrialConfig] if not section else [] if field is None else [field.annotation]
    annotations = [kind.model_fields[name].annotation for kind in kinds if name in getattr(kind, "model_fields", ())]
    return frozenset(part for annotation in annotations for part in (get_args(annotation) or (annotation,)))


def as_drawn(distribution: BaseDistribution, value: Scalar) -> Scalar:
    """Return a value of a row or a configuration as the distribution draws it; what it cannot draw is left alone."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        found: Scalar = next((choice for choice in distribution.choices if choice == value), value)
        return found
    if value is None or isinstance(value, str):
        return value
    if isinstance(distribution, IntDistribution):
        return int(value) if value == int(value) else value
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        step = round((value - distribution.low) / distribution.step)
        near = min(distribution.low + step * distribution.step, distribution.high)
        return near if math.isclose(near, value, abs_tol=1e-6 * distribution.step) else float(value)
    return float(value)


def values_of(distribution: BaseDistribution) -> Sequence[Scalar] | None:
    """Return every value of a distribution; None if there are too many to count, as between two floats."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if not isinstance(distribution, FloatDistribution):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    if low == high:
        return (low,)
    if step is None:
        return None
    return [min(low + number * step, high) for number in range(round((high - low) / step) + 1)]


def count_configurations(base: TrialConfig, vary: Mapping[str, BaseDistribution]) -> int | None:
    """Return how many suggestions a space has; None if they cannot be counted."""
    parts = [[values_of(vary[key]) for key in keys] for _chosen, keys in _classes(base, vary)]
    if any(values is None for part in parts for values in part):
        return None
    return sum(math.prod(len(values or ()) for values in part) for part in parts)


def configurations_of(base: TrialConfig, vary: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Scalar]]:
    """Yield every suggestion of a space; none if they cannot be counted."""
    if count_configurations(base, vary) is None:
        return
    for chosen, keys in _classes(base, vary):
        for values in itertools.product(*(values_of(vary[key]) or () for key in keys)):
            yield chosen | dict(zip(keys, values, strict=True))


def _classes(
    base: TrialConfig, vary: Mapping[str, BaseDistribution]
) -> Iterator[tuple[dict[str, Scalar], Sequence[str]]]:
    """Yield each combination of the classes that are varied, with the other varied keys that exist in it."""
    kinds = [key for key in vary if key in DISCRIMINATOR_KEYS]
    for values in itertools.product(*(values_of(vary[key]) or () for key in kinds)):
        chosen = dict(zip(kinds, values, strict=True))
        known = (base.override(chosen) if chosen else base).flat()
        yield chosen, [key for key in vary if key in known and key not in chosen]


def choice_of_one(value: Scalar) -> BaseDistribution:
    """Return the distribution of a key that is fixed wherever it exists."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution((value,))


def is_choice(distribution: BaseDistribution) -> bool:
    """Return whether the values have no order."""
    from optuna.distributions import CategoricalDistribution

    return isinstance(distribution, CategoricalDistribution)


def whole_numbers(distribution: BaseDistribution) -> range:
    """Return every value of a range of whole numbers; of any other distribution, none."""
    from optuna.distributions import IntDistribution

    if not isinstance(distribution, IntDistribution):
        return range(0)
    return range(distribution.low, distribution.high + 1, distribution.step)


def range_text(distribution: BaseDistribution) -> str:
    """Return a distribution as text: `2…6`, `0…0.5 (step 0.1)`, `5e-4…1e-2 (log)`, or choices as `a | b`.

    Ends are exact: a number has all of its digits.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(value_text, distribution.choices))
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return str(distribution)  # a kind of Optuna's that is none of its three
    has_exponents = distribution.log and distribution.low < _LEAST_PLAIN
    low, high = (value_text(end, has_exponent=has_exponents) for end in (distribution.low, distribution.high))
    if distribution.low == distribution.high:
        return low
    step = distribution.step
    is_plain = step is None or (step == 1 and isinstance(distribution, IntDistribution))
    return f"{low}…{high}{' (log)' * distribution.log}{'' if is_plain else f' (step {value_text(step)})'}"


_LEAST_PLAIN = 0.01
"""Ranges on a logarithmic scale from below this have ends with exponents, such as 1e-3…1e-1."""


def value_text(value: object, *, has_exponent: bool = False) -> str:
    """Return a value of a key as it can be set: words as in TOML, `none`, and all digits of a number.

    Args:
        value: The value.
        has_exponent: Write a fraction with an exponent, such as `5e-4`; else only where it has one in Python.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    text = repr(value)
    if has_exponent and value:
        sign, digits, exponent = Decimal(text).normalize().as_tuple()
        mantissa = "".join(map(str, digits))
        point = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
        return f"{'-' * sign}{mantissa[0]}{point}e{int(exponent) + len(mantissa) - 1}"
    mantissa, e, power = text.partition("e")
    return f"{mantissa.removesuffix('.0')}{f'e{int(power)}' if e else ''}"


def _ends(distribution: BaseDistribution) -> tuple[Scalar, ...]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return tuple(dict.fromkeys((distribution.low, distribution.high)))


def contains(distribution: BaseDistribution, value: Scalar) -> bool:
    """Return whether a trial could draw `value`."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def nearest(distribution: BaseDistribution, value: Scalar) -> Scalar:
    """Return the end of the range next to `value`; of choices, the first."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(distribution, IntDistribution | FloatDistribution) and isinstance(value, int | float):
        return min((distribution.low, distribution.high), key=lambda end: abs(end - value))
    return _ends(distribution)[0]


def corners_of(
    base: TrialConfig, rest: list[tuple[str, BaseDistribution]], drawn: dict[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    """Yield every combination of extreme values of the keys in `rest`, after those in `drawn`."""
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
    """Return the keys that some corner has."""
    return {key for corner in corners for key in corner}


def key_exists(base: TrialConfig, key: str, drawn: Mapping[str, Scalar]) -> bool:
    """Return whether a trial has `key`, given the classes among the keys drawn so far."""
    chosen = {name: value for name, value in drawn.items() if name in DISCRIMINATOR_KEYS}
    return key in (base.override(chosen) if chosen else base).flat()


def discriminators_first(vary: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the keys in an order in which each is drawn after those that decide whether it exists."""
    return dict(sorted(vary.items(), key=lambda item: item[0] not in DISCRIMINATOR_KEYS))


def short_name(key: str) -> str:
    """Return what tables call a key: `layers` of model.layers, `likelihood` of likelihood.name."""
    section, _, name = key.rpartition(".")
    return section if name == "name" else name
