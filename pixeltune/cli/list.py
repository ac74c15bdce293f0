"""`pixeltune list`: the searches, finals and single trainings of a storage, with status, best number and dates."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_storage, console, positive, say
from pixeltune.cli.tables import MISSING, TableColumn, more_rows, print_table
from pixeltune.results.storage import storage_words

if TYPE_CHECKING:
    from datetime import datetime

    from pixeltune.results.overview import BestNumber, SearchOverview

_TOP = 30
_SORTS = ("name", "date", "best")

COLUMNS = (
    TableColumn(title="name", align="left"),
    TableColumn(title="kind", align="left", priority=3),
    TableColumn(title="status", align="left", priority=1),
    TableColumn(title="trials", priority=2),
    TableColumn(title="best bits/dim"),
    TableColumn(title="of trial", align="left", priority=4),
    TableColumn(title="data", align="left", priority=6),
    TableColumn(title="began", align="left", priority=7),
    TableColumn(title="last active", align="left", priority=5),
)


def add_verb(verbs: Any) -> None:
    """Add `pixeltune list`."""
    parser = verbs.add_parser(
        "list",
        help="the searches of a storage: status, best, dates",
        examples=("pixeltune list", "pixeltune list --storage s3://bucket/results --sort date --top 5"),
    )
    parser.add_argument("--sort", choices=_SORTS, default="name", help="by name, the latest first, or by bits/dim")
    parser.add_argument("--top", type=positive, metavar="N", help=f"the first N of them [{_TOP}]")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--json", action="store_true", help="all as one JSON array, for scripts")
    add_storage(parser)
    parser.set_defaults(verb=list_searches)


def list_searches(options: argparse.Namespace) -> int:
    """Print a line for each search; nothing is written and no lock is held."""
    from pixeltune import files
    from pixeltune.results.overview import overviews

    where = storage_words(options.storage)
    is_unused = not where and not files.exists(options.storage)  # the default storage, before the first search
    found = _sorted([] if is_unused else [*overviews(options.storage)], options.sort)
    top = len(found) if options.all or (options.json and options.top is None) else options.top or _TOP
    if options.json:
        say(json.dumps([_plain(each) for each in found[:top]]))
        return EXIT_OK
    if not found:
        say(f"No search in {options.storage}; a search begins with python launch.py --search NAME.")
        return EXIT_OK
    out = console()
    print_table(out, COLUMNS, [_row(each) for each in found[:top]], more=more_rows(len(found) - top, "--all"))
    for each in found[:top]:
        if each.problem:
            out.print(f"{each.search}: {each.problem}", highlight=False, soft_wrap=True, markup=False)
    say(f"One of them: pixeltune leaderboard NAME{where}")
    return EXIT_OK


def _sorted(found: Sequence[SearchOverview], order: str) -> list[SearchOverview]:
    """Return searches in an order; those without a value of it come last."""
    if order == "date":
        return sorted(found, key=lambda each: -_seconds(each.last_at or each.began_at))
    if order == "best":
        return sorted(found, key=lambda each: (each.best is None, each.best.bits_per_dim if each.best else 0.0))
    return list(found)


def _seconds(time: datetime | None) -> float:
    return 0.0 if time is None else time.timestamp()


def _plain(each: SearchOverview) -> dict[str, Any]:
    times = {name: time and time.isoformat() for name, time in (("began_at", each.began_at), ("last_at", each.last_at))}
    return asdict(each) | times


def _row(each: SearchOverview) -> list[str]:
    ended = sum(count for status, count in each.counts.items() if status not in ("running", "interrupted"))
    total = max(each.trials or 0, sum(each.counts.values()))
    return [
        each.search,
        each.kind or MISSING,
        each.status,
        f"{ended:,}" if ended == total else f"{ended:,} of {total:,}",
        _number(each.best),
        each.best.trial if each.best else MISSING,
        each.data or MISSING,
        _date(each.began_at),
        _date(each.last_at),
    ]


def _number(best: BestNumber | None) -> str:
    from pixeltune.results.ranking import bound_mark

    if best is None:
        return MISSING
    mark = bound_mark({"is_bound": best.is_bound})
    if best.split == "test":
        error = "" if best.error is None else f" ± {best.error:.5f}"
        return f"{mark}{best.bits_per_dim:.5f}{error} (test)"
    error = "" if best.error is None else f" ± {best.error:.4f}"
    return f"{mark}{best.bits_per_dim:.4f}{error}"


def _date(time: datetime | None) -> str:
    """Return a time of this machine's clock."""
    return MISSING if time is None else f"{time.astimezone():%Y-%m-%d %H:%M}"
