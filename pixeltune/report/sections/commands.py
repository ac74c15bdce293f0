"""The commands that run a search again, and the usual next ones; to be copied into a shell."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import tomli_w

from pixeltune.config import Scalar, TrialConfig, parse_setting, stored
from pixeltune.errors import ConfigError, PixeltuneError
from pixeltune.files import is_uri, join
from pixeltune.report.snapshot import Snapshot
from pixeltune.results.final_selection import Selection
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.parquet_io import Row
from pixeltune.results.store import SearchStore
from pixeltune.space import list_searches, load_search
from pixeltune.space.keys import value_text
from pixeltune.space.priors import parse_prior

_HARMLESS = ("region", "scheme", "endpoint_override")
"""Options of an object storage's URI that are shown; others may be secrets."""

_UNSET = object()


@dataclass(frozen=True)
class Command:
    """A command of one or more lines. words: what it does, and how certain that is."""

    words: str
    command: str


def rerun(snapshot: Snapshot) -> list[Command]:
    """Return the commands that run the search again, retrain its best trial, and continue."""
    return list(_commands(snapshot))


def shown_location(location: str) -> str:
    """Return a location without user names, passwords and keys; a path as it is."""
    if not is_uri(location):
        return location
    parts = urlsplit(location)
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in _HARMLESS])
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def setting(key: str, value: Any) -> str:
    """Return `key=value` for --set, which reads it back as the same value."""
    return f"{key}={_value(key, value)}"


def _commands(snapshot: Snapshot) -> Iterator[Command]:
    storage, search = storage_words(snapshot.store), snapshot.search
    final = snapshot.manifest.final
    if final is not None:
        yield Command(
            "The same final: it resumes from its results, or begins from scratch without them.", _final(snapshot, final)
        )
        yield Command("This report again.", _shell("pixeltune", "report", search, *storage))
        return
    if snapshot.manifest.searched():
        yield _search(snapshot)
    else:
        yield _training(snapshot)
    best = next(iter(snapshot.best(1)), None)
    if best is not None:
        yield Command(
            "The best configurations on the test set, with new seeds: numbers that may compare with published ones.",
            _shell("pixeltune", "final", search, "--top", "3", "--seeds", "3", *storage),
        )
        if snapshot.manifest.searched():
            yield from _best_alone(snapshot, best)
    code = f'import pixeltune as pt; print(pt.read_results("{shown_location(snapshot.store.folder)}"))'
    yield Command(
        "The rows behind this report, and the report again.",
        "\n".join([_shell("python", "-c", code), _shell("pixeltune", "report", search, *storage)]),
    )


def _search(snapshot: Snapshot) -> Command:
    manifest = snapshot.manifest
    file, text = _search_file(manifest)
    budget = snapshot.launch.get("budget") or {}
    overrides = dict(manifest.overrides)
    scheduler = overrides.pop("scheduler", _UNSET)
    command = ["python", "launch.py", "--search", file]
    command += [] if file == manifest.search else ["--name", manifest.search]
    command += ["--trials", str(budget["trials"])] if budget.get("trials") else []
    command += ["--hours", f"{budget['hours']:g}"] if budget.get("hours") else []
    command += ["--sampler", manifest.sampler, *_proposals(manifest)]
    command += ["--repeats", str(manifest.repeats)] if manifest.repeats > 1 else []
    command += [] if scheduler is _UNSET else ["--scheduler", "none" if scheduler is None else str(scheduler)]
    if manifest.warm_start:
        command += [
            "--warm-start",
            *(shown_location(join(_parent(snapshot.store), name)) for name in manifest.warm_start),
        ]
    command += _sets(overrides)
    return Command(text, _shell(*command, *storage_words(snapshot.store)))


def _proposals(manifest: SearchManifest) -> list[str]:
    """Return the options for the first configurations, the grid and the priors; those of the file may be repeated."""

    def setting(key: str, *values: Scalar) -> str:
        return f"{key}={','.join(map(value_text, values))}"

    words = []
    for first in manifest.first:
        words += ["--first", ",".join(setting(key, value) for key, value in first.items())]
    for key, values in manifest.grid.items():
        words += ["--grid", setting(key, *values)]
    for key, prior in manifest.prior.items():
        words += ["--prior", f"{key}={prior}"]
    return words


def _search_file(manifest: SearchManifest) -> tuple[str, str]:
    """Return the search file to name, and whether this pixeltune's file would search the same.

    The results do not hold the file. A search is usually named after its file; with --name, often after that and more.
    """
    shipped = [name for name in list_searches() if name in manifest.search]
    differences = {name: _difference(name, manifest) for name in shipped}
    for name, lines in differences.items():
        if not lines:
            return name, (
                f"The same search: checked against {name} as this pixeltune has it. It resumes from its "
                "results, or begins from scratch without them."
            )
    if manifest.search in shipped:
        differing = "; ".join(differences[manifest.search][:3])
        return (
            manifest.search,
            f"The same search, if {manifest.search} is as it was: this pixeltune's differs ({differing}).",
        )
    return "FILE.py", (
        "The same search: in place of FILE.py the file, or name, with which it was launched; pixeltune ships no search "
        f"called {manifest.search}."
    )


def _difference(name: str, manifest: SearchManifest) -> list[str]:
    """Return what differs in the shipped search, changed as this one was."""
    from dataclasses import replace

    try:
        with stored():  # the results may name code of others
            prior = {key: parse_prior(text) for key, text in manifest.prior.items()}
            space = replace(load_search(name), sampler=manifest.sampler, grid=manifest.grid, prior=prior)
            space = replace(space, repeats=manifest.repeats)
            space = space.override(dict(manifest.overrides))
        mine = SearchManifest.of(space, manifest.search, warm_start=manifest.warm_start)
    except PixeltuneError as error:
        return [str(error)]
    return mine.difference(manifest)


def _training(snapshot: Snapshot) -> Command:
    manifest = snapshot.manifest
    file = f"{manifest.search}.toml"
    train = _shell("pixeltune", "train", "--config", file, *storage_words(snapshot.store))
    try:
        heredoc = _heredoc(file, manifest.base)
    except ConfigError as error:  # a family or likelihood that this installation does not know
        return Command(f"The same training, with {file} as it was: this pixeltune cannot read it ({error}).", train)
    return Command("The same training, of this configuration.", heredoc + train)


def _best_alone(snapshot: Snapshot, best: Row) -> Iterator[Command]:
    name = f"{snapshot.search}-{best['trial']}"
    storage = storage_words(snapshot.store)
    yield Command(
        f"The best trial, {best['trial']}, trained once more and stored next to these results.",
        _shell("pixeltune", "rerun", f"{snapshot.search}/{best['trial']}", *storage),
    )
    with suppress(ConfigError):  # a family or likelihood that this installation does not know
        yield Command(
            "The same without these results: its whole configuration.",
            _heredoc(f"{name}.toml", _configuration(best)) + _shell("pixeltune", "train", "--config", f"{name}.toml"),
        )


def _configuration(row: Row) -> dict[str, Scalar]:
    """Return the keys of a row that its family and likelihood have, without the location of its data."""
    from pixeltune.config import KEYS_NOT_HASHED
    from pixeltune.results.own_keys import has_key

    keys = list(TrialConfig.model_fields) + [key for key in row if "." in key]
    return {key: row[key] for key in keys if key in row and key not in KEYS_NOT_HASHED and has_key(row, key)}


def _final(snapshot: Snapshot, final: Selection) -> str:
    budget = snapshot.launch.get("budget") or {}
    argv = final_words(final, snapshot.search, budget.get("trials") or len(snapshot.rows))
    return _shell(*argv, *_sets(snapshot.manifest.overrides), *storage_words(snapshot.store))


def final_words(final: Selection, name: str, runs: int) -> list[str]:
    """Return the command line of a final with so many runs, without its settings and its storage."""
    argv = ["pixeltune", "final", final.search]
    argv += ["--top", str(final.top)] if final.top is not None else []
    for trial in final.trials:
        argv += ["--trial", trial]
    argv += ["--seeds", str(max(1, math.ceil(runs / len(final.chosen))))]
    argv += ["--images", str(final.images)] if final.images is not None else []
    return argv + ([] if name == f"{final.search}-final" else ["--name", name])


def _sets(overrides: Mapping[str, Any]) -> list[str]:
    return [word for key, value in overrides.items() for word in ("--set", setting(key, value))]


def storage_words(store: SearchStore) -> list[str]:
    """Return the --storage option of a store, without user names and keys."""
    return ["--storage", shown_location(_parent(store))]


def _parent(store: SearchStore) -> str:
    head, mark, query = store.folder.partition("?") if is_uri(store.folder) else (store.folder, "", "")
    return (head.rpartition("/")[0] or "/") + mark + query


def _shell(*words: str) -> str:
    return shlex.join(words)


def _heredoc(file: str, keys: Mapping[str, Scalar]) -> str:
    with stored():
        config = TrialConfig.from_flat(keys)
    return f"cat > {shlex.quote(file)} <<'END'\n{config.to_toml()}END\n"


def _value(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str) and parse_setting(f"{key}={value}") == (key, value):
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    """Return a value of TOML in one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")
