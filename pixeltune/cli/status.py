"""`pixeltune status SEARCH`: the progress of a search, from another shell while it runs, or afterwards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_storage, console, say
from pixeltune.cli.completion import complete_searches
from pixeltune.cli.tables import MISSING, TableColumn, print_table
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.results.search_status import Running, SearchStatus, TargetStatus

_IN_JSON = ("trial", "status", "images_seen", "valid_bits_per_dim", "valid_nats", "is_bound", "num_parameters")
_OF_REPEATS = ("seeds", "seeds_left", "runs", "valid_bits_per_dim_error", "valid_nats_error")
"""Columns of the best row in the JSON output; the second ones only of a search with repeats."""


_COLUMNS = (
    TableColumn(title="trial", align="left"),
    TableColumn(title="images", priority=2),
    TableColumn(title="rung", priority=4),
    TableColumn(title="bits/dim"),
    TableColumn(title="images/s", priority=3),
    TableColumn(title="since", priority=1),
    TableColumn(title="", align="left", least=12),
)


def add_verb(verbs: Any) -> None:
    """Add `pixeltune status`."""
    parser = verbs.add_parser(
        "status",
        help="show the progress of a search, while it runs or afterwards",
        examples=("pixeltune status digits_quick", "pixeltune status digits_quick --json"),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="its name in the storage")
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument("--json", action="store_true", help="as one JSON object, for scripts")
    add_storage(parser)
    parser.set_defaults(verb=status)


def status(options: argparse.Namespace) -> int:
    """Print the status; nothing is written and no lock is held."""
    from pixeltune.results.search_status import read_status
    from pixeltune.results.store import SearchStore

    found = read_status(SearchStore(options.storage, options.search))
    if options.json:
        say(json.dumps(_plain(found)))
        return EXIT_OK
    require_packages("a table", "rich")
    out = console()
    for line in _head(found):
        out.print(line, highlight=False, soft_wrap=True)
    if found.running:
        rows = [_row(trial, is_live=found.launcher is not None) for trial in found.running]
        print_table(out, _COLUMNS, rows)
    for reason, count in found.failures.items():
        out.print(f"  {count} × {reason}", highlight=False, soft_wrap=True)
    return EXIT_OK


def _plain(found: SearchStatus) -> dict[str, Any]:
    best = None
    if found.best is not None:
        names = [*_IN_JSON, *(name for name in _OF_REPEATS if name in found.best)]
        best = {name: found.best.get(name) for name in names}
    return asdict(found) | {"best": best}


def _head(found: SearchStatus) -> Iterator[str]:
    from pixeltune.format import dollars, duration, listed
    from pixeltune.published.nearest import nearest_published_note
    from pixeltune.results.ranking import bound_mark
    from pixeltune.results.repeats import error_text, trial_text
    from pixeltune.results.search_status import below_baseline, left_words

    yield f"[bold]{found.search}[/bold]: {_launcher(found)}"
    counts = [f"{count} {name}" for name, count in found.counts.items()]
    yield f"Trials: {', '.join([*counts, f'{len(found.running)} running'] if found.running else counts) or 'none'}"
    if found.data:
        yield f"Data: {found.data}"
    if found.best is not None:
        value = found.best["valid_bits_per_dim"]
        below = below_baseline(value, found.baseline_bits_per_dim)
        error = error_text(found.best, "valid_bits_per_dim")
        number = f"{bound_mark(found.best)}{value:.4f}{error} bits/dim ({trial_text(found.best)})"
        yield f"Best: {number}{below}{nearest_published_note(found.best)}"
    if found.contenders:
        yield f"Better so far, with fewer seeds: {listed(found.contenders, 10)}"
    if found.target is not None:
        yield f"Target: {_target(found.target)}"
    if found.dollars is not None:
        yield f"Cost: {dollars(found.dollars)}"
    if found.left:
        eta = "" if found.eta_seconds is None else f"; about {duration(found.eta_seconds)} at this pace"
        yield f"Budget left: {', '.join(left_words(found.left))}{eta}"


def _target(target: TargetStatus) -> str:
    from pixeltune.space.metrics import sign

    bound = f"{target.metric} {'at most' if sign(target.metric) > 0 else 'at least'} {target.value:g}"
    return f"{bound}, {'not reached' if target.reached_by is None else f'reached by trial {target.reached_by}'}"


def _launcher(found: SearchStatus) -> str:
    if found.launcher is not None:
        who = found.launcher
        return f"running, process {who['pid']} on {who.get('host', '?')}" if "pid" in who else "running"
    if found.running:
        return "not running; run the same command again to resume the unfinished trials"
    return f"not running; ended: {found.ended}" if found.ended else "not running"


def _row(trial: Running, *, is_live: bool) -> list[str]:
    from pixeltune.format import duration

    return [
        trial.trial + (f" (attempt {trial.attempt})" if trial.attempt > 1 else ""),
        f"{trial.images_seen:,} / {trial.images:,}",
        MISSING if trial.rung is None else f"{trial.rung:,}",
        MISSING if trial.bits_per_dim is None else f"{'≤ ' * trial.is_bound}{trial.bits_per_dim:.4f}",
        MISSING if trial.images_per_second is None else f"{trial.images_per_second:,.0f}",
        duration(trial.running_seconds),
        _note(trial, is_live=is_live),
    ]


def _note(trial: Running, *, is_live: bool) -> str:
    from pixeltune.format import duration

    if not is_live:
        return "left behind"
    if trial.late:
        return f"no report for {duration(trial.silent_seconds)}"
    repeats = "" if trial.repeat_of is None else f"repeats {trial.repeat_of}"
    return ", ".join(filter(None, ["" if trial.images_per_second is not None else "starting", repeats]))
