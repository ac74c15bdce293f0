"""The versions of a search's space: the one that it began with, and one more for each `--extend`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pixeltune.config import Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, kw_only=True)
class SpaceVersion:
    """One version of the space of a search.

    Attributes:
        since: When the search began to use it, ISO 8601 in UTC.
        base: Dotted keys of the base configuration, without KEYS_NOT_HASHED.
        vary: Key → Optuna's JSON of its distribution.
        overrides: The --set changes, which `base` and `vary` include.
        first: The first configurations, with the values of all varied keys.
        grid: Key → the values that the sampler `grid` tries.
        prior: Key → its prior, as `parse_prior` reads it.
    """

    since: str
    base: Mapping[str, Scalar]
    vary: Mapping[str, str]
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    first: tuple[Mapping[str, Scalar], ...] = ()
    grid: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    prior: Mapping[str, str] = field(default_factory=dict)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the varied keys with Optuna's distributions."""
        return {key: distribution_of(text) for key, text in self.vary.items()}

    def to_tree(self) -> dict[str, Any]:
        """Return the version as JSON holds it."""
        return asdict(self) | {"vary": {key: json.loads(text) for key, text in self.vary.items()}}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Read `to_tree` back; KeyError, TypeError or ValueError where a part is missing or of another kind."""
        vary = {key: normal_json(key, json.dumps(value)) for key, value in tree["vary"].items()}
        return cls(**{**tree, "vary": vary, "first": tuple(tree["first"])})


def widest(versions: Iterable[SpaceVersion]) -> dict[str, BaseDistribution]:
    """Return every key that a version varies with the widest of its distributions, keys of later versions first.

    Ranges only grow from version to version, so the last distribution of a key that is not fixed has all its values.
    """
    found: dict[str, BaseDistribution] = {}
    for version in reversed([*versions]):
        for key, distribution in version.distributions().items():
            if key not in found or (found[key].single() and not distribution.single()):
                found[key] = distribution
    return found


def json_of(distribution: BaseDistribution) -> str:
    """Return Optuna's JSON of a distribution."""
    from optuna.distributions import distribution_to_json  # a search of one configuration has no distribution

    return distribution_to_json(distribution)


def distribution_of(text: str) -> BaseDistribution:
    """Return the distribution of Optuna's JSON."""
    from optuna.distributions import json_to_distribution

    return json_to_distribution(text)


def normal_json(key: str, text: str) -> str:
    """Return the JSON of a distribution, of an older file too, with the types that rows have."""
    from pixeltune.space.keys import normal_distribution

    written = distribution_of(text)
    normal = normal_distribution(key, written)
    return text if normal is written else json_of(normal)
