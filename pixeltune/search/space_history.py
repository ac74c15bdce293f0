"""The versions of a search's space while it runs: which rows of earlier versions are trials of the newest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from pixeltune.config import Scalar, TrialConfig
from pixeltune.errors import StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.space_versions import SpaceVersion
from pixeltune.space import SearchSpace
from pixeltune.space.keys import contains, key_exists


class SpaceHistory:
    """The space that is searched now, and the earlier ones.

    Args:
        space: The newest version.
        earlier: The versions before it, the first one first.
    """

    def __init__(self, space: SearchSpace, earlier: Sequence[SearchSpace] = ()) -> None:
        self._space = space
        self._earlier = tuple(earlier)

    @classmethod
    def of(cls, space: SearchSpace, manifest: SearchManifest) -> Self:
        """Return the versions of a manifest, the newest one as the launch was given it."""
        return cls(space, [space_of(version) for version in manifest.earlier])

    @property
    def version(self) -> int:
        """Return the number of the newest version; the first one is 1."""
        return len(self._earlier) + 1

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that any version varies, those of the newest one first."""
        spaces = [self._space, *reversed(self._earlier)]
        return tuple(dict.fromkeys(key for space in spaces for key in space.vary))

    def has(self, row: Mapping[str, Any], version: int | None = None) -> bool:
        """Return whether the newest space has the configuration of a row.

        Args:
            row: A row of the search.
            version: The version that its columns are read with; by default the one that proposed it.

        Raises:
            StoreError: The row is of a later version than is known here.
        """
        number = version or row.get("space_version") or 1
        if number == self.version:
            return True
        if number > self.version:
            raise StoreError(
                f"search.json must have version {number} of the space, which proposed trial {row['trial']}, but it has "
                f"{self.version}; put back the newest search.json"
            )
        space = self._earlier[number - 1]
        return suggestion_in(self._space, space.configure(space.suggestion_of(row))) is not None


def space_of(version: SpaceVersion) -> SearchSpace:
    """Return the base and the varied keys of one version."""
    return SearchSpace(base=TrialConfig.from_flat(version.base), vary=version.distributions())


def suggestion_in(space: SearchSpace, config: TrialConfig) -> dict[str, Scalar] | None:
    """Return the suggestion that makes a configuration in a space; None if the space lacks it."""
    flat = config.flat()
    suggestion: dict[str, Scalar] = {}
    for key, distribution in space.vary.items():
        if not key_exists(space.base, key, suggestion):
            continue
        if key not in flat or not contains(distribution, flat[key]):
            return None
        suggestion[key] = flat[key]
    suggestion = space.suggestion_of(suggestion)
    return suggestion if space.configure(suggestion).key() == config.key() else None


def with_earlier_first(wanted: SearchManifest, known: SearchManifest, space: SearchSpace) -> SearchManifest:
    """Return the manifest of an extension, with the first configurations of before that its space has at their head."""
    before = space_of(known.versions[-1])
    carried: list[Mapping[str, Scalar]] = []
    for given in known.first:
        suggestion = suggestion_in(space, before.configure(given))
        if suggestion is not None and suggestion not in (space.base_suggestion(), *carried):
            carried.append(suggestion)
    return replace(wanted, first=(*carried, *(each for each in wanted.first if each not in carried)))
