"""A final from its files to its end: the choice is made once, from then on it is a search of given trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixeltune.config import NO_IDENTITY, TrialConfig
from pixeltune.data import resolve
from pixeltune.errors import ConfigError, DataError, StoreError
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.selection import Selection
from pixeltune.results.store import SearchStore
from pixeltune.search.choose import choose
from pixeltune.space import FinalSpace, Resources, SearchSpace
from pixeltune.space.parts import replaced


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for. search, storage: of the search. name: of the final; "" for SEARCH-final.

    top, or trials by name; seeds: how many. images: training images in place of the configurations' own.
    settings: dotted keys, of whereabouts, memory and resources alone. hours: of this launch.
    """

    search: str
    storage: str
    name: str = ""
    top: int | None = None
    trials: tuple[str, ...] = ()
    seeds: int = 1
    images: int | None = None
    settings: Mapping[str, Any]
    hours: float | None = None

    @property
    def store(self) -> SearchStore:
        """Where the final keeps its results: beside its search."""
        return SearchStore(self.storage, self.name or f"{self.search}-final")


def require_search(request: Request) -> None:
    """StoreError where there is neither the search nor a final that has begun, before a folder is made."""
    if not request.store.has_trials():
        SearchStore(request.storage, request.search).manifest()


def open_final(request: Request) -> tuple[SearchStore, SearchManifest, FinalSpace]:
    """Begin a final or go on with it; the caller holds `request.store.lock()`.

    What is retrained is decided when its first run begins. From then on the search may go on, or be gone: a final that
    is asked for in another way is refused, with the difference.
    """
    store = request.store
    selection = _known(store, request) if store.has_trials() else select(request)
    space = _space(selection, request, begun=len(store.trials()))
    return store, store.open(SearchManifest.of(space, store.search, final=selection)), space


def select(request: Request) -> Selection:
    """What the request would choose now; refused while a launch works on the search."""
    search = SearchStore(request.storage, request.search)
    manifest = search.manifest()
    if manifest.final is not None:
        raise StoreError(
            f"a final retrains what a search has chosen, but {request.search} is a final of {manifest.final.search} "
            "itself; name that search"
        )
    with search.lock():
        rows = search.trials()
    return choose(rows, manifest, top=request.top, trials=request.trials, images=request.images)


def moved_on(request: Request, selection: Selection) -> list[str]:
    """The trials that would be chosen now, where they are others; empty also where the search is gone or at work."""
    try:
        now = [item.trial for item in select(request).chosen]
    except StoreError:
        return []
    return now if now != [item.trial for item in selection.chosen] else []


def require_final_data(space: SearchSpace, selection: Selection) -> None:
    """The images must be those that the search was made on, and have a test split; DataError or StoreError."""
    config = space.base
    if resolve(config).data.test is None:
        raise DataError(f"a final reads a test split, but {config.data.name} has none")
    checksum = resolve(config.override({"data.train_on_valid": False})).data.identity.checksum
    if checksum != selection.data_checksum:
        raise StoreError(
            f"a final must be made on the images of its search (checksum {selection.data_checksum}), but got "
            f"{checksum}; put them back, or say with --set data.path where they lie"
        )


def _known(store: SearchStore, request: Request) -> Selection:
    known = store.manifest().final
    if known is None:
        raise StoreError(f"{store.search} must be a final, but it is a search; take another --name")
    lines = known.difference(
        search=request.search,
        search_id=SearchStore(request.storage, request.search).search_id,
        top=None if request.trials else request.top,
        trials=request.trials,
        images=request.images,
    )
    if lines:
        raise StoreError(
            f"a final must go on as it began, but got {'; '.join(lines)}; ask for the same, or take another --name"
        )
    return known


def _space(selection: Selection, request: Request, *, begun: int) -> FinalSpace:
    """The trials of a selection; settings may say where the data lies and how training is done, not what is trained.

    begun: how many of its trials have. A launch with fewer seeds runs no more of them, but must know them.
    """
    changes = {key: value for key, value in request.settings.items() if not key.startswith("resources.")}
    for key in changes:
        if key not in NO_IDENTITY:
            raise ConfigError(
                f"a final retrains configurations as they are: --set may only be {', '.join(NO_IDENTITY)} or "
                f"resources.*, but got {key}"
            )
    chosen: dict[str, TrialConfig] = {trial: config.override(changes) for trial, config in selection.configs().items()}
    own = {key: value for key, value in request.settings.items() if key.startswith("resources.")}
    return FinalSpace.of(
        chosen,
        search=selection.search,
        seeds=selection.seeds(max(request.seeds, math.ceil(begun / len(chosen)))),
        resources=_resources(selection, own),
        hours=request.hours,
        trials=request.seeds * len(chosen),
    )


def _resources(selection: Selection, changes: Mapping[str, Any]) -> Resources:
    """As much as any of the trials had, and what the settings say; several workers take whole GPUs, or none."""
    chosen, names = selection.chosen, ("workers", "cpus", "gpus")
    workers, cpus, gpus = (max(getattr(item, name) for item in chosen) for name in names)
    if changes.get("resources.workers", workers) != 1:
        gpus = float(math.ceil(gpus))
    return replaced("resources", Resources(workers, cpus, gpus), changes)
