"""Rows of other searches that a search may learn from, and why others are left out.

The rows are copied into the search's own folder when it begins, so that they are the same at every launch even if the
other search changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pixeltune import files
from pixeltune.config import KEYS_NOT_HASHED, Scalar, TrialConfig
from pixeltune.data import Resolved
from pixeltune.errors import ConfigError, StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.repeats import merge_repeats, plain_row
from pixeltune.results.schema import Status
from pixeltune.results.store import find_searches
from pixeltune.search.final import configs_of
from pixeltune.space import SearchSpace
from pixeltune.space.keys import contains, key_exists
from pixeltune.space.sampler_names import GRID

_TOLD = (Status.FINISHED, Status.DIVERGED)
_MAY_DIFFER = (*KEYS_NOT_HASHED, "seed", "train.report_every")
"""Keys of a base on which two searches must agree to measure the same."""
_SHOWN = 3


@dataclass
class WarmStart:
    """The selection. rows: for the sampler. left_out: how many are not used, by reason. ids: of the searches read."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    ids: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the number of rows used from each search, and why the others are not."""
        counts = Counter(str(row["search"]) for row in self.rows)
        taken = ", ".join(f"{count} of {search}" for search, count in counts.items()) or "none"
        lines = [f"Warm start: {len(self.rows)} trials of other searches are reported to the sampler ({taken})."]
        if self.left_out:
            reasons = [f"{count} {reason}" for reason, count in self.left_out.most_common()]
            more = f"; and {len(reasons) - _SHOWN} more reasons" if len(reasons) > _SHOWN else ""
            lines.append(f"Not reported: {'; '.join(reasons[:_SHOWN])}{more}.")
        return lines


def read_warm_start(locations: Sequence[str], space: SearchSpace, resolved: Resolved) -> WarmStart:
    """Return finished and diverged trials of the searches at `locations` that fit `space` and have the same images.

    StoreError if there is no search, ConfigError for the sampler `grid`, which tries its own values alone. Pruned
    trials are not used: they trained for less, by another search's rungs. A trial that is also in a copy of its search
    counts once, and so does a configuration that was repeated, with its mean.
    """
    if locations and space.sampler == GRID:
        raise ConfigError(
            f"a search with a warm start must have a sampler that may try other values, but got {GRID}; leave one out"
        )
    found, seen = WarmStart(), set()
    trials: set[tuple[object, ...]] = set()
    for location in locations:
        for store in find_searches(location):
            folder = files.absolute(store.folder)
            if folder in seen:
                continue
            seen.add(folder)
            manifest = store.manifest()
            found.ids += (manifest.id,)
            for row in map(plain_row, merge_repeats(store.trials())):
                reason = _why_not(row, manifest, space, resolved)
                if not reason and _identity(row) in trials:
                    reason = "also in a copy of its search"
                if reason:
                    found.left_out[reason] += 1
                else:
                    found.rows.append(row)
                    trials.add(_identity(row))
    return found


def ids_of(locations: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of the searches at `locations`, sorted; none if one of them is gone or has no id."""
    try:
        stores = {files.absolute(store.folder): store for location in locations for store in find_searches(location)}
    except StoreError:
        return ()
    ids = sorted(store.search_id or "" for store in stores.values())
    return tuple(ids) if all(ids) else ()


def _identity(row: Row) -> tuple[object, ...]:
    """Return what two copies of one trial share, and two trials do not."""
    if row["search_id"]:
        return row["search_id"], row["trial"], row["config_key"]
    return row["trial"], row["attempt"], row["started_at"], row["config_key"]


def _why_not(row: Row, manifest: SearchManifest, space: SearchSpace, resolved: Resolved) -> str:
    """Return why a row cannot be used; "" if it can."""
    if row["status"] not in _TOLD:
        return f"{row['status']}"
    if manifest.final is not None or row["evaluated_split"] == "test":
        return "measured on the test set"
    if row["status"] == Status.FINISHED:
        missing = [name for name in space.objectives if row[name] is None]
        if missing:
            return f"without {missing[0]}"
    identity = resolved.data.identity
    if row["data_checksum"] != identity.checksum or row["levels"] != resolved.data.form.levels:
        return "of other images"
    try:
        [theirs] = configs_of([row], manifest)
    except StoreError:
        return "whose configuration is not known any more"
    if row["own_code"] is not None and theirs.own_code() not in (None, row["own_code"]):
        return "of other code under the same import path"
    return _difference(theirs, space)


def _difference(theirs: TrialConfig, space: SearchSpace) -> str:
    """Return what puts a configuration outside the space."""
    there = theirs.flat()
    suggestion: dict[str, Scalar] = {}
    for key, distribution in space.vary.items():
        if not key_exists(space.base, key, suggestion):
            continue
        if key not in there or not contains(distribution, there[key]):
            return f"with {key} = {there.get(key, 'not there')}, outside of what is searched"
        suggestion[key] = there[key]
    here = space.configure(suggestion).flat()
    for key in [*here, *(key for key in there if key not in here)]:
        if key not in _MAY_DIFFER and here.get(key) != there.get(key):
            return f"with {key} = {there.get(key, 'not there')}, here {here.get(key, 'not there')}"
    return ""
