"""The definition of a search: written to `search.json` once; every later launch must agree with it or extend it.

Budget and resources are not part of it: a larger --trials extends a search, and another machine may continue it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from pixeltune import digest
from pixeltune.config import KEYS_NOT_HASHED, KINDS, Scalar, TrialConfig, is_own, stored
from pixeltune.errors import ConfigError, StoreError
from pixeltune.results.final_selection import Selection
from pixeltune.results.schema import SCHEMA_VERSION
from pixeltune.results.space_versions import SpaceVersion, distribution_of, json_of, normal_json, widest
from pixeltune.space import Scheduler, SearchSpace
from pixeltune.space.keys import value_text
from pixeltune.space.priors import prior_text

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class SearchManifest:
    """The definition of a search.

    Attributes:
        search: Its name, which readers take from its folder.
        id: Made when it began, kept when it is renamed; "" if it began before searches had ids.
        base: Dotted keys of the base configuration, without KEYS_NOT_HASHED.
        vary: Key → Optuna's JSON of its distribution.
        constraints: Metric → bound.
        scheduler: Its `name` and its settings, or None.
        sampler_seed: Seed of the sampler.
        repeats: Number of seeds with which a configuration is trained before it counts as the best.
        first: The configurations that follow the base, with the values of all varied keys; later launches may add some.
        grid: Key → the values that the sampler `grid` tries.
        prior: Key → its prior, as `parse_prior` reads it.
        created_at: ISO 8601 in UTC.
        overrides: The --set changes, so that the command can be shown again; `base` and `vary` include them.
        baseline_bits_per_dim: Order-0 on the validation set, if it was known.
        final: What a final retrains and why; None for a search.
        warm_start, warm_start_ids: Names and ids of the searches whose trials the sampler got when this one began.
        data_checksum: Checksum of the images that `base` names, if it was known.
        earlier: The earlier versions of the space, the first one first. `base`, `vary`, `overrides`, `first`, `grid`
            and `prior` are those of the newest.
        extended_at: When the newest version was made; "" for the first one.
    """

    search: str
    base: Mapping[str, Scalar]
    vary: Mapping[str, str]
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    scheduler: Mapping[str, Any] | None
    sampler: str
    sampler_seed: int
    created_at: str
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    baseline_bits_per_dim: float | None = None
    final: Selection | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    warm_start: tuple[str, ...] = ()
    warm_start_ids: tuple[str, ...] = ()
    data_checksum: str | None = None
    first: tuple[Mapping[str, Scalar], ...] = ()
    grid: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    prior: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    earlier: tuple[SpaceVersion, ...] = ()
    extended_at: str = ""
    id: str = ""
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        name: str,
        *,
        overrides: Mapping[str, Scalar] | None = None,
        baseline_bits_per_dim: float | None = None,
        final: Selection | None = None,
        warm_start: tuple[str, ...] = (),
        warm_start_ids: tuple[str, ...] = (),
        data_checksum: str | None = None,
    ) -> Self:
        """Return the manifest of a space, its --set changes already applied."""
        return cls(
            search=name,
            base={key: value for key, value in space.base.flat().items() if key not in KEYS_NOT_HASHED},
            vary={key: json_of(distribution) for key, distribution in space.vary.items()},
            objectives=space.objectives,
            directions=tuple(space.metrics[name] for name in space.objectives),
            constraints=dict(space.constraints),
            scheduler=scheduler_tree(space.scheduler),
            sampler=space.sampler,
            sampler_seed=space.seed,
            repeats=space.repeats,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            overrides=dict(overrides or {}),
            baseline_bits_per_dim=baseline_bits_per_dim,
            final=final,
            warm_start=warm_start,
            warm_start_ids=warm_start_ids,
            data_checksum=data_checksum,
            first=tuple(space.first_suggestions()),
            grid={key: list(values) for key, values in space.grid.items()},
            prior={key: prior_text(prior) for key, prior in space.prior.items()},
            id=uuid.uuid4().hex,
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the varied keys with Optuna's distributions."""
        return self.versions[-1].distributions()

    @property
    def versions(self) -> tuple[SpaceVersion, ...]:
        """Return the versions of the space, the newest last."""
        newest = SpaceVersion(
            since=self.extended_at or self.created_at,
            base=self.base,
            vary=self.vary,
            overrides=self.overrides,
            first=self.first,
            grid=self.grid,
            prior=self.prior,
        )
        return (*self.earlier, newest)

    def version_of(self, row: Mapping[str, Any]) -> SpaceVersion:
        """Return the version of the space that proposed a row; the first one for rows without `space_version`.

        Raises:
            StoreError: The row is of a later version than this manifest has.
        """
        number = row.get("space_version") or 1
        if number > len(self.versions):
            raise StoreError(
                f"search.json must have version {number} of the space, which proposed {self.search}/{row['trial']}, "
                f"but it has {len(self.versions)}; put back the newest search.json"
            )
        return self.versions[number - 1]

    def searched(self) -> dict[str, BaseDistribution]:
        """Return every key that some version varies, with a distribution that has the values of all versions."""
        return widest(self.versions)

    def names_own_code(self) -> bool:
        """Return whether a family or a likelihood is one of the user's own, for all trials or for some."""
        return any(
            is_own(name)
            for key in (kind.key for kind in KINDS.values())
            for version in self.versions
            for name in (version.base.get(key), *_choices(version.vary.get(key)))
        )

    def difference(self, other: SearchManifest) -> list[str]:
        """Return the differences from the manifest of the results, one line each; empty for the same search."""
        return [
            *self._difference_of_kind(other),
            *unequal_tables(completed(self.base), completed(other.base)),
            *unequal_vary(self.vary, other.vary),
            *self._difference_of_settings(other),
            *_unequal("grid", grid_text(self.grid), grid_text(other.grid)),
            *_unequal("prior", priors_text(self.prior), priors_text(other.prior)),
        ]

    def difference_but_space(self, other: SearchManifest) -> list[str]:
        """Return the differences that no extension of the space allows, one line each."""
        return [*self._difference_of_kind(other), *self._difference_of_settings(other)]

    def _difference_of_kind(self, other: SearchManifest) -> list[str]:
        return [
            *_unequal("search", self.search, other.search),
            *_unequal("final of", _chosen_text(self.final), _chosen_text(other.final)),
        ]

    def _difference_of_settings(self, other: SearchManifest) -> list[str]:
        return [
            *_unequal("objectives", ", ".join(self.objectives), ", ".join(other.objectives)),
            *_unequal("constraints", _bounds_text(self.constraints), _bounds_text(other.constraints)),
            *_unequal("scheduler", _scheduler_text(self.scheduler), _scheduler_text(other.scheduler)),
            *_unequal("warm start", ", ".join(self.warm_start) or "none", ", ".join(other.warm_start) or "none"),
            *_unequal("sampler", self.sampler, other.sampler),
            *_unequal("sampler seed", self.sampler_seed, other.sampler_seed),
            *_unequal("repeats", self.repeats, other.repeats),
        ]

    def to_json(self) -> str:
        """Return a readable JSON object, which ends with its digest."""
        tree = asdict(self) | {"vary": {key: json.loads(text) for key, text in self.vary.items()}}
        tree |= {"earlier": [version.to_tree() for version in self.earlier]}
        return digest.seal_json(tree).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `to_json` back; StoreError where it is damaged or cut, of another kind, or of a newer version."""
        try:
            tree = digest.open_json(text.encode() if isinstance(text, str) else text)
        except digest.DigestError as error:
            raise StoreError(
                f"search.json must be as pixeltune wrote it, but {error}; put a copy of it back, "
                f"or remove its last entry, {digest.KEY}, if you edited it and want it as it is now"
            ) from None
        except (ValueError, RecursionError) as error:
            raise StoreError(f"search.json must be whole, but it cannot be read ({error})") from None
        if not isinstance(tree, dict) or not isinstance(tree.get("schema_version"), int):
            raise StoreError("search.json must be a manifest by pixeltune, but it has no schema_version")
        if tree["schema_version"] > SCHEMA_VERSION:
            raise StoreError(
                f"search.json must have a schema version up to {SCHEMA_VERSION}, but got {tree['schema_version']}; "
                "take a newer pixeltune"
            )
        return cls._from_tree(tree)

    @classmethod
    def _from_tree(cls, tree: dict[str, Any]) -> Self:
        try:
            vary = {key: normal_json(key, json.dumps(value)) for key, value in tree["vary"].items()}
            known = {item.name: tree[item.name] for item in fields(cls) if item.name in tree}
            sequences = {name: tuple(tree[name]) for name in ("objectives", "directions")}
            sequences |= {name: tuple(tree.get(name, ())) for name in ("warm_start", "warm_start_ids", "first")}
            final = Selection.from_tree(tree["final"]) if tree.get("final") else None
            earlier = tuple(map(SpaceVersion.from_tree, tree.get("earlier", ())))
            return cls(**(known | sequences | {"vary": vary, "final": final, "earlier": earlier}))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise StoreError(f"search.json must hold a whole manifest, but {type(error).__name__}: {error}") from None


def completed(base: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Return `base` with today's defaults for options that did not exist when it was written."""
    try:
        with stored():
            flat = TrialConfig.from_flat(base).flat()
    except ConfigError:
        return base
    return {key: value for key, value in flat.items() if key not in KEYS_NOT_HASHED}


def _choices(text: str | None) -> Sequence[object]:
    """Return the choices of a category as JSON; none of anything else."""
    return () if text is None else json.loads(text)["attributes"].get("choices", ())


def _unequal(what: str, here: object, there: object) -> Iterator[str]:
    if here != there:
        yield f"{what}: {_shown(here)} here, {_shown(there)} in the results"


def unequal_tables(here: Mapping[str, Scalar], there: Mapping[str, Scalar]) -> Iterator[str]:
    """Yield a line for each key in which two configurations differ."""
    for key in [*here, *(key for key in there if key not in here)]:
        yield from _unequal(key, here.get(key, _MISSING), there.get(key, _MISSING))


def unequal_vary(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each varied key whose distributions differ."""
    for key in [*here, *(key for key in there if key not in here)]:
        yield from _unequal(f"vary {key}", _range_text(here.get(key)), _range_text(there.get(key)))


def _shown(value: object) -> str:
    return "not there" if value is _MISSING else str(value)


def _range_text(text: str | None) -> str:
    if text is None:
        return "fixed"
    distribution = distribution_of(text)
    arguments = ", ".join(f"{name}={value!r}" for name, value in distribution._asdict().items())
    return f"{type(distribution).__name__}({arguments})"


def _chosen_text(final: Selection | None) -> str:
    return "none" if final is None else f"{final.search} ({', '.join(item.trial for item in final.chosen)})"


def _bounds_text(constraints: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {constraints[name]:.15g}" for name in sorted(constraints)) or "none"


def grid_text(grid: Mapping[str, Sequence[Scalar]]) -> str:
    """Return the lists of a grid as text; `none` without one."""
    return "; ".join(f"{key} {', '.join(map(value_text, grid[key]))}" for key in sorted(grid)) or "none"


def priors_text(prior: Mapping[str, str]) -> str:
    """Return the priors of a search as text; `none` without one."""
    return "; ".join(f"{key} {prior[key]}" for key in sorted(prior)) or "none"


def scheduler_tree(scheduler: Scheduler | None) -> dict[str, Any] | None:
    """Return a scheduler as its name and its settings; None without one."""
    if scheduler is None:
        return None
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(scheduler).items()}
    return {"name": type(scheduler).__name__.lower()} | settings


def _scheduler_text(scheduler: Mapping[str, Any] | None) -> str:
    """Return a scheduler as text; one without a name was written before there were several, and is Asha."""
    if scheduler is None:
        return "none"
    match scheduler.get("name", "asha"):
        case "median":
            return f"median after {scheduler.get('grace')} images and {scheduler.get('completed')} finished trials"
        case "pareto":
            return f"Pareto at {scheduler.get('rungs')} with a margin of {scheduler.get('margin')}"
    return f"ASHA at {scheduler.get('rungs')} by {scheduler.get('reduction')}"
