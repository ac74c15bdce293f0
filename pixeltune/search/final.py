"""The choice of a final's trials, made once, and its results folder; it then runs as a search of given trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixeltune.config import KEYS_NOT_HASHED, TrialConfig, stored
from pixeltune.data import resolve
from pixeltune.errors import ConfigError, DataError, StoreError
from pixeltune.results.final_selection import Chosen, Selection
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.own_keys import has_key, require_code
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import best_first, can_be_best, counted_statuses
from pixeltune.results.repeats import first_trial, merge_repeats
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.search.space_history import space_of
from pixeltune.space import FinalSpace, Resources, SearchSpace
from pixeltune.space.parts import replaced

_KEYS_OF_THE_ROW = (*KEYS_NOT_HASHED, "train.report_every")
"""Keys read from the row: search.json omits data paths and may leave `report_every` unset."""

LENGTH_KEYS = ("train.images", "train.stop_after", "optim.warmup")
"""Keys that `pixeltune continue` changes."""


def choose(
    rows: Sequence[Row],
    manifest: SearchManifest,
    *,
    top: int | None,
    trials: tuple[str, ...] = (),
    images: int | None = None,
) -> Selection:
    """Return the `top` best finished rows of a search by its first objective, or the named `trials`.

    In a search with repeats a configuration counts by the mean over its seeds; a repeat that is named counts alone.
    Pruned rows are not finished models. A row that breaks the search's constraints, or whose bits a real code does not
    confirm, is retrained only if it is named. Of several rows with one configuration, with any seeds, only the best
    counts. StoreError if no row is left.
    """
    # Finished trials, the best first.
    objective, direction = manifest.objectives[0], manifest.directions[0]
    every = rows
    rows = [*merge_repeats(rows), *(row for row in rows if trials and row.get("repeat_of") is not None)]
    able = [row for row in rows if row["status"] == Status.FINISHED and row[objective] is not None]
    able = best_first(able, objective, by_value_alone=True)
    if not able:
        raise StoreError(
            f"a final retrains finished trials, but {manifest.search} has none "
            f"({counted_statuses(rows) or 'no trials'}); let the search go on first"
        )

    # Without names, only those within the constraints and whose bits a code does not refute.
    finished = len(able)
    if not trials:
        able = [row for row in able if can_be_best(row, (objective,), manifest.constraints)]
        able = best_first(able, objective, manifest.constraints)
    if not able:
        raise StoreError(
            "a final retrains trials that keep to the constraints and whose bits no code refutes, but none of the "
            f"{finished} finished ones of {manifest.search} does; name one with --trial, or let the search go on"
        )

    # The named ones, or the best of each configuration.
    if trials:
        named = [_named(name, rows, able, manifest.search) for name in trials]
        able = [row for row in able if row in named]
    configs = _configs(able, manifest)
    distinct = _distinct(able, configs)
    chosen = distinct if trials else distinct[:top]

    # Numbers of different images do not compare.
    _require_one_data_set(chosen)
    return Selection(
        search=manifest.search,
        objective=objective,
        direction=direction,
        top=None if trials else top,
        trials=trials,
        images=images,
        data_checksum=str(chosen[0]["data_checksum"]),
        chosen=tuple(_chosen(row, configs[row["trial"]], objective, every) for row in chosen),
        search_id=manifest.id,
        left_out=tuple(_left_out(rows, able, distinct, wanted=len(trials) if trials else top or 0)),
    )


def _named(name: str, rows: Sequence[Row], able: Sequence[Row], search: str) -> Row:
    """Return the finished row that `name` means: its number, or a unique prefix."""
    exact = [row for row in rows if name.isdecimal() and row["number"] == int(name)]
    found = exact or [row for row in rows if row["trial"].startswith(name)]
    if len(found) != 1:
        raise StoreError(
            f"--trial must name one trial of {search}, but {name!r} fits "
            f"{', '.join(row['trial'] for row in found) or 'none'}; finished are "
            f"{', '.join(row['trial'] for row in able)}"
        )
    if found[0] not in able:
        raise StoreError(
            f"--trial must name a finished trial, but {search}/{found[0]['trial']} is {found[0]['status']}"
        )
    return found[0]


def configs_of(rows: Iterable[Row], manifest: SearchManifest) -> Iterator[TrialConfig]:
    """Yield the configuration of each row of a search with its data paths; no code of the user's own is imported.

    StoreError if one is not the configuration that was trained.
    """
    if manifest.names_own_code():  # the space cannot be built without the classes, and the rows have every key
        yield from (_of_row(row, manifest) for row in rows)
        return
    spaces: dict[int, SearchSpace] = {}
    for row in rows:
        number = row.get("space_version") or 1
        if number not in spaces:
            spaces[number] = space_of(manifest.version_of(row))
        space = spaces[number]
        known = {key: row[key] for key in _KEYS_OF_THE_ROW if row[key] is not None}
        if row.get("repeat_of") is not None:
            known["seed"] = row["seed"]
        if row.get("continues_attempt") is not None:
            known |= {key: row[key] for key in LENGTH_KEYS}
        yield _as_trained(space.configure(space.suggestion_of(row)).override(known), row, manifest)


def _of_row(row: Row, manifest: SearchManifest) -> TrialConfig:
    keys = (key for key in row if key == "seed" or key.partition(".")[0] in TrialConfig.model_fields)
    try:
        with stored():
            return _as_trained(
                TrialConfig.from_flat({key: row[key] for key in keys if has_key(row, key)}), row, manifest
            )
    except ConfigError as error:
        raise StoreError(f"the row of {manifest.search}/{row['trial']} must be a configuration, but {error}") from None


def _as_trained(config: TrialConfig, row: Row, manifest: SearchManifest) -> TrialConfig:
    if config.key() != row["config_key"]:
        raise StoreError(
            f"the configuration of {manifest.search}/{row['trial']} must be {row['config_key']} as it was trained, "
            f"but its row and search.json make {config.key()}; retrain it with the pixeltune that trained it "
            f"({row['pixeltune_version']})"
        )
    return config


def _configs(rows: Sequence[Row], manifest: SearchManifest) -> dict[str, TrialConfig]:
    return dict(zip((row["trial"] for row in rows), configs_of(rows, manifest), strict=True))


def _distinct(rows: Sequence[Row], configs: Mapping[str, TrialConfig]) -> list[Row]:
    """Return the first row of each configuration, ignoring the seed: a final sets its own seeds."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(configs[row["trial"]].override({"seed": 0}).key(), row)
    return list(first.values())


def _chosen(row: Row, config: TrialConfig, objective: str, rows: Sequence[Row]) -> Chosen:
    runs = [other for other in rows if first_trial(other) == first_trial(row)]
    return Chosen(
        highest_seed=max(other["seed"] for other in runs) if len(runs) > 1 else None,
        trial=row["trial"],
        value=row[objective],
        config=config.flat(),
        images=row["images_seen"],
        best_images=row["best_images_seen"],
        workers=row["workers"] or 1,
        cpus=row["cpus_per_worker"] or 1,
        gpus=row["gpus_per_worker"] or 0.0,
    )


def _require_one_data_set(rows: Sequence[Row]) -> None:
    checksums = sorted({str(row["data_checksum"]) for row in rows})
    if len(checksums) > 1:
        raise StoreError(f"chosen trials must be of the same images, but got checksums {', '.join(checksums)}")


def _left_out(rows: Sequence[Row], able: Sequence[Row], distinct: Sequence[Row], *, wanted: int) -> Iterator[str]:
    """Return why fewer configurations were chosen than requested; "" if enough were."""
    if wanted <= len(distinct):
        return
    yield f"{wanted} configurations were asked for and {len(distinct)} are there"
    others = [row for row in rows if row["status"] != Status.FINISHED]
    if others:
        yield f"{counted_statuses(others)}: no finished models"
    if len(able) > len(distinct):
        yield f"{len(able) - len(distinct)} repeat a configuration"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's request for a final. search, storage: of the search. name: of the final; "" for SEARCH-final.

    top, or trials by name; seeds: how many. images: training images in place of the configurations' own.
    settings: dotted keys; only data locations, memory and resources. hours: limit of this launch.
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
        """Return the final's results folder, next to its search."""
        return SearchStore(self.storage, self.name or f"{self.search}-final")


def require_search(request: Request) -> None:
    """Raise StoreError, before a folder is made, if neither the search nor a started final exists."""
    if not request.store.has_trials():
        SearchStore(request.storage, request.search).manifest()


def open_final(request: Request) -> tuple[SearchStore, SearchManifest, FinalSpace]:
    """Start or resume a final; the caller holds `request.store.lock()`.

    The trials are chosen when the first run begins. The search may continue or be deleted after that. A request that
    differs from the first one is refused, and the error names the difference.
    """
    store = request.store
    selection = _known(store, request) if store.has_trials() else select(request)
    space = _space(selection, request, begun=len(store.trials()))
    if not store.has_trials():
        _require_same_code(selection, SearchStore(request.storage, request.search))
    return store, store.open(SearchManifest.of(space, store.search, final=selection)), space


def _require_same_code(selection: Selection, search: SearchStore) -> None:
    """Refuse to retrain trials with other code of the user's own than that which trained them."""
    chosen = {item.trial for item in selection.chosen}
    for row in search.trials():
        if row["trial"] in chosen:
            require_code(f"{search.search}/{row['trial']}", row)


def select(request: Request) -> Selection:
    """Return what the request would choose now; refused while a launch works on the search."""
    search = SearchStore(request.storage, request.search)
    manifest = search.manifest()
    if manifest.final is not None:
        raise StoreError(
            f"a final retrains what a search has chosen, but {request.search} is a final of {manifest.final.search} "
            "itself; name that search"
        )
    with search.lock():
        rows = search.trials()
    if rows and all(row["num_test"] == 0 for row in rows):
        raise DataError(_no_test_split(rows[0]["data.name"]))
    return choose(rows, manifest, top=request.top, trials=request.trials, images=request.images)


def moved_on(request: Request, selection: Selection) -> list[str]:
    """Return the trials that would be chosen now if they differ; empty also if the search is gone or running."""
    try:
        now = [item.trial for item in select(request).chosen]
    except StoreError:
        return []
    return now if now != [item.trial for item in selection.chosen] else []


def require_final_data(space: SearchSpace, selection: Selection) -> None:
    """Raise DataError without a test split, and StoreError for images that the search was not made on."""
    config = space.base
    if resolve(config).data.test is None:
        raise DataError(_no_test_split(config.data.name))
    checksum = resolve(config.override({"data.train_on_valid": False})).data.identity.checksum
    if checksum != selection.data_checksum:
        raise StoreError(
            f"a final must be made on the images of its search (checksum {selection.data_checksum}), but got "
            f"{checksum}; put them back, or say with --set data.path where they are"
        )


def _no_test_split(name: str) -> str:
    return (
        f"a final reads a test split, but {name} has none; hold images out in a folder or file of their own (test), "
        "and run the search again"
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
    """Return the trials of a selection; settings may change data locations and memory use, not what is trained.

    begun: how many of its trials have started. A launch with fewer seeds starts no more of them, but must know them.
    """
    changes = {key: value for key, value in request.settings.items() if not key.startswith("resources.")}
    for key in changes:
        if key not in KEYS_NOT_HASHED:
            raise ConfigError(
                f"a final retrains configurations as they are: --set may only be {', '.join(KEYS_NOT_HASHED)} or "
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
    """Return the most that any of the trials had, changed by the settings; several workers take whole GPUs, or none."""
    chosen, names = selection.chosen, ("workers", "cpus", "gpus")
    workers, cpus, gpus = (max(getattr(item, name) for item in chosen) for name in names)
    if changes.get("resources.workers", workers) != 1:
        gpus = float(math.ceil(gpus))
    return replaced("resources", Resources(workers, cpus, gpus), changes)
