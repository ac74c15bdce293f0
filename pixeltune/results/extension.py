"""The rule for `--extend`: how the space of a search may change so that its old rows keep their meaning.

Ranges may grow, choices may be added, a key may be varied from its base value on, and a varied key may be fixed to one
of its values. What else makes up a search stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pixeltune.config import KEYS_NOT_HASHED, Scalar, TrialConfig, stored
from pixeltune.errors import ConfigError
from pixeltune.results.manifest import SearchManifest, completed, grid_text, unequal_tables, unequal_vary
from pixeltune.space.grid_values import grid_distributions
from pixeltune.space.keys import (
    DISCRIMINATOR_KEYS,
    contains,
    corners_of,
    discriminators_first,
    range_text,
    value_text,
    values_of,
)
from pixeltune.space.sampler_names import GRID

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def obstacles(wanted: SearchManifest, known: SearchManifest) -> list[str]:
    """Return why a search cannot be extended, one line each; empty if it can.

    Args:
        wanted: The manifest of the space that a launch was given.
        known: The manifest of the results.
    """
    with stored():  # nothing is built, and earlier versions may name classes of the user's own that are gone
        return [
            *wanted.difference_but_space(known),
            *_lost_ranges(wanted, known),
            *_lost_values(wanted, known),
            *_other_base(wanted, known),
            *_other_grid(wanted, known),
            *_other_priors(wanted, known),
        ]


def extended(wanted: SearchManifest, known: SearchManifest) -> SearchManifest:
    """Return the manifest of the results with the space of `wanted` as its newest version."""
    newest = {name: getattr(wanted, name) for name in ("base", "vary", "overrides", "first", "grid", "prior")}
    return replace(known, **newest, earlier=known.versions, extended_at=wanted.created_at)


def changes(wanted: SearchManifest, known: SearchManifest) -> list[str]:
    """Return what an extension changes, as text: `model.layers 2…6 → 2…8`."""
    here, there = (
        {key: range_text(distribution) for key, distribution in manifest.distributions().items()}
        for manifest in (wanted, known)
    )
    keys = [*here, *(key for key in there if key not in here)]
    texts = [(key, there.get(key, _fixed_text(key, known)), here.get(key, _fixed_text(key, wanted))) for key in keys]
    found = [f"{key} {before} → {now}" for key, before, now in texts if before != now]
    if wanted.grid != known.grid:
        found.append(f"grid {grid_text(known.grid)} → {grid_text(wanted.grid)}")
    return found + [f"prior of {key}" for key in _changed_priors(wanted, known)]


def _fixed_text(key: str, manifest: SearchManifest) -> str:
    return value_text(manifest.base[key]) if key in manifest.base else "not there"


def _lost_ranges(wanted: SearchManifest, known: SearchManifest) -> Iterator[str]:
    """Yield the keys whose range lacks a value that a trial may have had, in any version."""
    before, last, now = known.searched(), known.distributions(), wanted.distributions()
    lost = {
        key
        for key, distribution in now.items()
        if not all(_has_all(distribution, kinds[key]) for kinds in (before, last) if key in kinds)
    }
    for key in lost & known.vary.keys():
        yield from unequal_vary({key: wanted.vary[key]}, {key: known.vary[key]})
    for key in lost - known.vary.keys():
        yield f"vary {key}: {range_text(now[key])} here, {range_text(before[key])} in an earlier version of the results"
    for key in known.vary.keys() - now.keys():
        value = wanted.base.get(key)
        if key in wanted.base and not contains(before[key], value):
            yield f"{key}: fixed to {value_text(value)} here, varied over {range_text(before[key])} in the results"


def _has_all(now: BaseDistribution, before: BaseDistribution) -> bool:
    """Return whether a range is another one or a wider one, or one value of it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if now.single() or before.single():
        one, other = (now, before) if now.single() else (before, now)
        return all(contains(other, value) for value in values_of(one) or ())
    if isinstance(now, CategoricalDistribution) and isinstance(before, CategoricalDistribution):
        return all(contains(now, choice) for choice in before.choices)
    if type(now) is not type(before):
        return False
    assert isinstance(now, IntDistribution | FloatDistribution)
    assert isinstance(before, IntDistribution | FloatDistribution)
    if not now.low <= before.low <= before.high <= now.high:
        return False
    values = values_of(before)
    if values is None:
        return now.step is None
    return all(contains(now, value) for value in values)


def _lost_values(wanted: SearchManifest, known: SearchManifest) -> Iterator[str]:
    """Yield keys that vary now, but not over the value that they had by default in trials of another class."""
    before, now = known.distributions(), wanted.distributions()
    known_base = completed(known.base)
    base = TrialConfig.from_flat(known_base)
    kinds = [item for item in discriminators_first(before).items() if item[0] in DISCRIMINATOR_KEYS]
    flats = [(base.override(chosen) if chosen else base).flat() for chosen in corners_of(base, kinds, {})]
    for key in now.keys() - before.keys() - known_base.keys():
        for value in {flat[key] for flat in flats if key in flat and not contains(now[key], flat[key])}:
            yield f"vary {key}: {range_text(now[key])} here, {value_text(value)} in trials of the results"


def _other_base(wanted: SearchManifest, known: SearchManifest) -> list[str]:
    """Return the keys of the base that differ by more than the keys that are fixed now.

    A class that is fixed brings keys of its own: with their defaults, or with a value in their range if they vary.
    """
    here, there = completed(wanted.base), completed(known.base)
    fixed = {key: here[key] for key in known.vary if key not in wanted.vary and key in here}
    try:
        expected = _with_fixed(there, fixed)
    except ConfigError:
        expected = {**there, **fixed}
    gained = {key for key in wanted.vary if key in here and key not in there}
    keys = [key for key in dict.fromkeys([*here, *expected]) if key not in gained]
    return list(
        unequal_tables(
            {key: here[key] for key in keys if key in here}, {key: expected[key] for key in keys if key in expected}
        )
    )


def _with_fixed(base: Mapping[str, Scalar], fixed: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    flat = TrialConfig.from_flat(base).override(fixed).flat()
    return {key: value for key, value in flat.items() if key not in KEYS_NOT_HASHED}


def _other_grid(wanted: SearchManifest, known: SearchManifest) -> Iterator[str]:
    """Yield the keys whose list of the sampler `grid` lacks a value that it had."""
    if known.sampler != GRID:
        return
    before = grid_distributions(known.grid, known.distributions())
    now = grid_distributions(wanted.grid, wanted.distributions())
    for key in before.keys() & now.keys():
        old, new = (list(values_of(kinds[key]) or ()) for kinds in (before, now))
        if not wanted.distributions()[key].single() and any(value not in new for value in old):
            here, there = (", ".join(map(value_text, values)) for values in (new, old))
            yield f"grid {key}: {here} here, {there} in the results"


def _other_priors(wanted: SearchManifest, known: SearchManifest) -> Iterator[str]:
    """Yield the priors that differ although their keys vary as before."""
    for key in _changed_priors(wanted, known):
        if wanted.vary.get(key) == known.vary.get(key):
            yield f"prior {key}: {wanted.prior.get(key, 'none')} here, {known.prior.get(key, 'none')} in the results"


def _changed_priors(wanted: SearchManifest, known: SearchManifest) -> list[str]:
    keys = dict.fromkeys([*wanted.prior, *known.prior])
    return [key for key in keys if wanted.prior.get(key) != known.prior.get(key)]
