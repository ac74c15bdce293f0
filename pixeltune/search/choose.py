"""Which configurations of a search a final retrains: the best of those that trained to their end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pixeltune.config import NO_IDENTITY, TrialConfig
from pixeltune.errors import StoreError
from pixeltune.results.judge import is_unconfirmed
from pixeltune.results.leaderboard import counted_statuses
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.rows import Row
from pixeltune.results.schema import Status
from pixeltune.results.selection import Chosen, Selection
from pixeltune.space import SearchSpace
from pixeltune.space.metrics import keeps_to

_ALSO_TOLD = (*NO_IDENTITY, "train.report_every")
"""What a row knows better than search.json: that leaves the first out, and may leave the last to the data."""


def choose(
    rows: Sequence[Row],
    manifest: SearchManifest,
    *,
    top: int | None,
    trials: tuple[str, ...] = (),
    images: int | None = None,
) -> Selection:
    """The `top` best finished rows of a search by its first objective, or the named `trials`; StoreError where none is.

    A pruned row is no finished model, and one that breaks the search's constraints, or whose bits a real code does not
    confirm, is only retrained where it is named. Rows of one configuration count once, also with several seeds: the
    best of them.
    """
    objective, direction = manifest.objectives[0], manifest.directions[0]
    sign = 1 if direction == "minimize" else -1
    able = [row for row in rows if row["status"] == Status.FINISHED and row[objective] is not None]
    able.sort(key=lambda row: (sign * row[objective], row["trial"]))
    if not able:
        raise StoreError(
            f"a final retrains finished trials, but {manifest.search} has none "
            f"({counted_statuses(rows) or 'no trials'}); let the search go on first"
        )
    finished = len(able)
    if not trials:
        able = [row for row in able if not is_unconfirmed(row)]
        able = [row for row in able if keeps_to(manifest.constraints, row, has_ended=True)]
    if not able:
        raise StoreError(
            "a final retrains trials that keep to the constraints and whose bits no code refutes, but none of the "
            f"{finished} finished ones of {manifest.search} does; name one with --trial, or let the search go on"
        )
    if trials:
        named = [_named(name, rows, able, manifest.search) for name in trials]
        able = [row for row in able if row in named]
    configs = _configs(able, manifest)
    distinct = _distinct(able, configs)
    chosen = distinct if trials else distinct[:top]
    _require_one_data_set(chosen)
    return Selection(
        search=manifest.search,
        objective=objective,
        direction=direction,
        top=None if trials else top,
        trials=trials,
        images=images,
        data_checksum=str(chosen[0]["data_checksum"]),
        chosen=tuple(_chosen(row, configs[row["trial"]], objective) for row in chosen),
        search_id=manifest.id,
        left_out=tuple(_left_out(rows, able, distinct, wanted=len(trials) if trials else top or 0)),
    )


def _named(name: str, rows: Sequence[Row], able: Sequence[Row], search: str) -> Row:
    """The finished row that `name` means: its number, or a unique beginning."""
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


def space_of(manifest: SearchManifest) -> SearchSpace:
    """Base and varied keys of a search, as its manifest has them."""
    return SearchSpace(base=TrialConfig.from_flat(manifest.base), vary=manifest.distributions())


def config_of(row: Row, space: SearchSpace, manifest: SearchManifest) -> TrialConfig:
    """The configuration of a row, where its data lies included; StoreError where it is not what was trained."""
    told = {key: row[key] for key in _ALSO_TOLD if row[key] is not None}
    config = space.configure(space.suggestion_of(row)).override(told)
    if config.key() != row["config_key"]:
        raise StoreError(
            f"the configuration of {manifest.search}/{row['trial']} must be {row['config_key']} as it was trained, "
            f"but its row and search.json make {config.key()}; retrain it with the pixeltune that trained it "
            f"({row['pixeltune_version']})"
        )
    return config


def _configs(rows: Sequence[Row], manifest: SearchManifest) -> dict[str, TrialConfig]:
    space = space_of(manifest)
    return {row["trial"]: config_of(row, space, manifest) for row in rows}


def _distinct(rows: Sequence[Row], configs: Mapping[str, TrialConfig]) -> list[Row]:
    """The first row of each configuration, whatever its seed: a final brings seeds of its own."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(configs[row["trial"]].override({"seed": 0}).key(), row)
    return list(first.values())


def _chosen(row: Row, config: TrialConfig, objective: str) -> Chosen:
    return Chosen(
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
    """Only said where fewer are chosen than were asked for."""
    if wanted <= len(distinct):
        return
    yield f"{wanted} configurations were asked for and {len(distinct)} are there"
    others = [row for row in rows if row["status"] != Status.FINISHED]
    if others:
        yield f"{counted_statuses(others)}: no finished models"
    if len(able) > len(distinct):
        yield f"{len(able) - len(distinct)} repeat a configuration"
