"""The configurations that a search tries right after its base, in the order given."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.config import Scalar
from pixeltune.errors import ConfigError, did_you_mean
from pixeltune.space.keys import DISCRIMINATOR_KEYS, as_drawn, contains, is_choice, range_text, value_text

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from pixeltune.space.search_space import SearchSpace


def drawable(distribution: BaseDistribution, value: object) -> Scalar:
    """Return a value that a user gives, as a trial draws it; a number of numpy becomes Python's.

    Raises:
        ValueError: No trial can draw it: outside the range, off the step, not among the choices, or of another type.
    """
    item = getattr(value, "item", None)
    plain: Any = item() if callable(item) else value
    is_number = isinstance(plain, numbers.Real) and not isinstance(plain, bool)
    if is_choice(distribution):
        choices: Sequence[Scalar] = distribution.choices  # type: ignore[attr-defined]
        found = any(choice == plain and isinstance(choice, bool) == isinstance(plain, bool) for choice in choices)
    else:
        found = is_number and contains(distribution, plain)
    if not found:
        shown = repr(plain) if isinstance(plain, str) else value_text(plain)
        raise ValueError(f"among {range_text(distribution)}, but got {shown}")
    return as_drawn(distribution, plain)


def require_varied(what: str, keys: Iterable[str], vary: Mapping[str, BaseDistribution]) -> None:
    """Refuse keys that the search does not vary, with the nearest one that it does.

    Raises:
        ConfigError: A key is unknown or fixed.
    """
    for key in keys:
        if key not in vary:
            hint = did_you_mean(str(key), vary, as_code=True)
            raise ConfigError(
                f"{what} must name keys that vary, but got `{key}`;{' ' if hint else ''}{hint} "
                f"varied are {', '.join(vary) or 'none'}"
            )


def require_first(space: SearchSpace) -> tuple[dict[str, Scalar], ...]:
    """Return `space.first` with the values that trials draw.

    Raises:
        ConfigError: An entry names a key that is not varied, has a value that no trial can draw, cannot be built, or
            repeats the base or another entry.
    """
    if not isinstance(space.first, tuple | list) or not all(isinstance(given, Mapping) for given in space.first):
        raise ConfigError(
            f'first must be a list of configurations, such as [{{"model.layers": 4}}], but got {space.first!r}'
        )
    names = ["the base"]
    known = [space.base_suggestion()]
    first = []
    for number, given in enumerate(space.first):
        name = f"first[{number}]"
        first.append(_values(name, given, space.vary))
        suggestion = completed(space, first[-1], name)
        if suggestion in known:
            raise ConfigError(
                f"{name} must be a configuration of its own, but it is the same as {names[known.index(suggestion)]}; "
                "leave it out"
            )
        known.append(suggestion)
        names.append(name)
    return tuple(first)


def completed(space: SearchSpace, given: Mapping[str, Any], name: str = "first") -> dict[str, Scalar]:
    """Return the suggestion of a first configuration: keys that are not given have the value of the base.

    A key that the base does not have, because the entry chooses another class, has its default if that can be drawn.

    Raises:
        ConfigError: A trial with these classes lacks a given key, or a key has neither a base value nor such a default.
    """
    given = _values(name, given, space.vary)
    chosen = {key: value for key, value in given.items() if key in space.configure(_classes_of(given)).flat()}
    unused = [key for key in given if key not in chosen]
    if unused:
        raise ConfigError(
            f"{name} must set keys that its trial has, but `{unused[0]}` does not exist with "
            f"{', '.join(f'{key}={value_text(value)}' for key, value in _classes_of(given).items()) or 'the base'}"
        )
    suggestion = space.suggestion_of(space.configure(chosen).flat())
    for key, value in suggestion.items():
        if not contains(space.vary[key], value):
            raise ConfigError(
                f"{name} must set `{key}`, which the base does not have and whose default, {value_text(value)}, is not "
                f"among {range_text(space.vary[key])}"
            )
    return suggestion


def still_first(
    first: Iterable[Mapping[str, Scalar]], flat: Mapping[str, Scalar], vary: Mapping[str, BaseDistribution]
) -> tuple[dict[str, Scalar], ...]:
    """Return first configurations after some varied keys were fixed, without those keys.

    An entry that is now the same as the base is dropped.

    Args:
        first: The entries as they were.
        flat: The keys of the new base.
        vary: The keys that still vary.

    Raises:
        ConfigError: An entry has another value of a key that is fixed now.
    """
    kept = []
    for number, given in enumerate(first):
        for key, value in given.items():
            if key not in vary and (key not in flat or flat[key] != value):
                raise ConfigError(
                    f"first[{number}] must agree with what is set, but it has {key}={value_text(value)} and the search "
                    f"{'has no such key' if key not in flat else f'is set to {value_text(flat[key])}'} now; "
                    "take it out of `first`, or do not set the key"
                )
        left = {key: value for key, value in given.items() if key in vary}
        is_changed = len(left) < len(given)
        if not is_changed or any(flat.get(key) != value for key, value in left.items()):
            kept.append(left)
    return tuple(kept)


def _values(name: str, given: Mapping[str, Any], vary: Mapping[str, BaseDistribution]) -> dict[str, Scalar]:
    require_varied(name, given, vary)
    values = {}
    for key, value in given.items():
        try:
            values[key] = drawable(vary[key], value)
        except ValueError as error:
            raise ConfigError(f"{name} must have `{key}` {error}") from None
    return values


def _classes_of(given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {key: value for key, value in given.items() if key in DISCRIMINATOR_KEYS}
