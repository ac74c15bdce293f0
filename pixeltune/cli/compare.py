"""`pixeltune compare`: our results next to the published tables."""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_storage, console, positive, say, writing
from pixeltune.cli.completion import complete_searches
from pixeltune.cli.tables import TableColumn, more_rows, print_table
from pixeltune.errors import StoreError
from pixeltune.format import counted

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


_MOST = 15
"""The published results that are shown next to each number."""

_COLUMNS = (
    TableColumn(title="published"),
    TableColumn(title="gap"),
    TableColumn(title="GPU-hours", priority=2),
    TableColumn(title="model", align="left", least=20),
    TableColumn(title="source", align="left", priority=3, least=20),
    TableColumn(title="comparable, or why not", align="left", priority=1, least=36),
)
_SPEED_COLUMNS = (
    TableColumn(title="images/s"),
    TableColumn(title="speed-up", priority=1),
    TableColumn(title="batch", priority=4),
    TableColumn(title="model", align="left", least=16),
    TableColumn(title="images", align="left", priority=3, least=12),
    TableColumn(title="method", align="left", priority=2, least=12),
    TableColumn(title="device", align="left", priority=1, least=16),
    TableColumn(title="source", align="left", priority=5, least=24),
)


def add_verb(verbs: Any) -> None:
    """Add `pixeltune compare`."""
    parser = verbs.add_parser(
        "compare",
        help="results next to published ones",
        examples=("pixeltune compare", "pixeltune compare digits_quick --csv compared.csv"),
    )
    search = parser.add_argument("search", nargs="?", metavar="SEARCH", help="one search [all of the storage]")
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument("--top", type=positive, default=1, metavar="K", help="best trials of each search [1]")
    parser.add_argument("--all", action="store_true", help=f"all published results, not the {_MOST} nearest in kind")
    parser.add_argument("--csv", metavar="FILE", help="write the whole table as CSV")
    parser.add_argument("--own", metavar="FILE", help="CSV with published rows of yours [STORAGE/published.csv]")
    parser.add_argument("--speed", action="store_true", help="sampling speeds instead of likelihoods")
    add_storage(parser)
    parser.set_defaults(verb=compare)


def compare(options: argparse.Namespace) -> int:
    """Print, or write, the comparison."""
    if options.speed and options.own:
        raise StoreError(f"--own is a table of likelihoods, but got it with --speed; leave out --own {options.own}")
    return _compare_speeds(options) if options.speed else _compare_likelihoods(options)


def _compare_likelihoods(options: argparse.Namespace) -> int:
    from pixeltune import files
    from pixeltune.published.compare import OWN_TABLE
    from pixeltune.published.compare import compare as compare_rows

    own_of_storage = files.join(options.storage, OWN_TABLE)
    own = options.own or (own_of_storage if files.exists(own_of_storage) else None)
    best = _best_rows(options)
    table = compare_rows(best, own)
    if options.csv:
        return _write(table, options.csv)
    out = console()
    if own:
        out.print(f"With the rows of {own}.", highlight=False)
    for _, part in table.groupby(["search", "trial", "metric"], observed=True, sort=False):
        known = part.astype(object).where(part.notna(), None)
        _print(out, known.to_dict("records"), None if options.all else _MOST)
    if table.empty:
        names = ", ".join(sorted({str(name) for name in best["data.name"]}))
        out.print(f"No published results for {names}.", highlight=False)
    return EXIT_OK


def _compare_speeds(options: argparse.Namespace) -> int:
    from pixeltune.published.compare import compare_speeds

    table = compare_speeds(_best_rows(options, "sample_images_per_second"))
    if options.csv:
        return _write(table, options.csv)
    known = table.astype(object).where(table.notna(), None)
    _print_speeds(console(), known.to_dict("records"))
    say(
        "Machines differ, so images/s of two devices do not compare; only the speed-up does, against naive sampling of "
        "the same model and batch on the same device. The results do not hold it: benchmarks/sample.py of the "
        "repository measures it for a model of yours."
    )
    return EXIT_OK


def _best_rows(options: argparse.Namespace, needed: str | None = None) -> pd.DataFrame:
    """Return the best `--top` rows of each search that have a result, and a value in the column `needed`."""
    from pixeltune import files
    from pixeltune.results.dataframes import configurations_of, read_results
    from pixeltune.results.ranking import RANKED

    location = files.join(options.storage, options.search) if options.search else options.storage
    rows = configurations_of(read_results(location))
    has_number = rows["valid_bits_per_dim"].notna() | rows["test_bits_per_dim"].notna()
    rows = rows[has_number & rows["status"].isin([str(status) for status in RANKED])]
    if rows.empty:
        raise StoreError(f"there must be results to compare, but {location} holds none")
    if needed is not None and (rows := rows[rows[needed].notna()]).empty:
        raise StoreError(f"there must be results with {needed} to compare, but {location} holds none; finish a trial")
    return _best_first(rows, location).groupby("search", observed=True).head(options.top)


def _write(table: pd.DataFrame, path: str) -> int:
    from pixeltune import files

    with writing(path):
        files.write_whole(path, table.to_csv(index=False).encode())
    say(f"Wrote {counted(len(table), 'row')} to {path}")
    return EXIT_OK


def _best_first(rows: pd.DataFrame, location: str) -> pd.DataFrame:
    """Return rows by bits/dim on validation, each under the constraints of its own search.

    Runs of a final have no validation: they keep their order, which is that of the search, best first.
    """
    from pixeltune.results.ranking import least_settled, rank_key
    from pixeltune.results.repeats import SEEDS_LEFT
    from pixeltune.results.store import find_searches
    from pixeltune.space.metrics import METRICS

    bounds = {store.search: store.manifest().constraints for store in find_searches(location) if store.exists()}
    names = ["search", "trial", "status", "bits_verified", *METRICS]
    names += [SEEDS_LEFT] if SEEDS_LEFT in rows.columns else []
    plain = rows[names].astype(object)
    records = plain.where(plain.notna(), None).itertuples(index=False, name=None)
    known = [dict(zip(names, values, strict=True)) for values in records]
    metric = "valid_bits_per_dim"
    bars = {
        search: least_settled([row for row in known if row["search"] == search], metric, bounds.get(search, {}))
        for search in {row["search"] for row in known}
    }
    keys = [rank_key(row, metric, bounds.get(row["search"], {}), bar=bars[row["search"]]) for row in known]
    return rows.iloc[sorted(range(len(keys)), key=keys.__getitem__)]


def _print(out: Console, records: Sequence[Mapping[Hashable, Any]], most: int | None) -> None:
    """Print one of our numbers next to the published ones nearest in kind; the title has what all differ in."""
    from pixeltune.published.nearest import UNITS, nearest_rows, reasons_of, shared_reasons

    shared = shared_reasons([reasons_of(record) for record in records])
    first = records[0]
    hours = "" if first["our_gpu_hours"] is None else f", {first['our_gpu_hours']:.3g} GPU-hours"
    kind = "test" if first["evaluated_split"] == "test" else "validation"
    verdict = f"; not comparable: {'; '.join(shared)}" if shared else ""
    ours = f"{'at most ' if first['is_bound'] else ''}{first['ours']:.4f} {UNITS[first['metric']]} ({kind})"
    shown = nearest_rows(records, most)
    print_table(
        out,
        _COLUMNS,
        [_row(record, [reason for reason in reasons_of(record) if reason not in shared]) for record in shown],
        title=f"{first['search']}/{first['trial']}: {ours}{hours}{_rank(records)}{verdict}",
        more=more_rows(len(records) - len(shown), "--all"),
    )
    out.print()


def _row(record: Mapping[Hashable, Any], own: Sequence[str]) -> list[str]:
    """Return the cells of a published result; own: what differs, apart from what differs in all."""
    notes = [f"not comparable: {'; '.join(own)}"] if own else ["comparable"] * bool(record["comparable"])
    notes += [f"caveats: {record['caveats']}"] if record["caveats"] else []
    paper = record["arxiv"] or ("" if record["title"] == record["model"] else record["title"])
    return [
        f"{'< ' if record['upper_limit'] else ''}{record['published']:g}",
        "" if record["gap"] is None else f"{record['gap']:+.3f}",
        "" if record["gpu_hours"] is None else f"{record['gpu_hours']:,.4g}",
        f"{record['model']} ({record['year']})",
        ", ".join(str(part) for part in (paper, record["where"]) if part),
        "; ".join(notes),
    ]


def _print_speeds(out: Console, records: Sequence[Mapping[Hashable, Any]]) -> None:
    """Print our speeds, then the published ones."""
    rows = []
    for record in records:
        ours = record["origin"] == "ours"
        model = f"{record['search']}/{record['trial']} ({record['model']})" if ours else record["model"]
        year = None if record["year"] is None else str(record["year"])
        notes = (record["arxiv"], year, record["where"], record["detail"], record["doubt"])
        rows.append(
            [
                _figure(record["images_per_second"], ",.3g"),
                _figure(record["speedup"], "g"),
                _figure(record["batch_size"], ",d"),
                model,
                " ".join(part for part in (record["dataset"], _size(record)) if part),
                record["method"],
                record["device"] or "not stated",
                "; ".join(note for note in notes if note),
            ]
        )
    print_table(out, _SPEED_COLUMNS, rows, title="Sampling speeds")


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(record: Mapping[Hashable, Any]) -> str:
    sides = (record["image_height"], record["image_width"])
    return "" if None in sides else "×".join(map(str, sides))


def _rank(records: Sequence[Mapping[Hashable, Any]]) -> str:
    """Return the rank among the comparable ones, which each of their records has."""
    places = {(record["rank"], record["rank_of"]) for record in records if record["rank"] is not None}
    return "".join(f"; it would be number {rank:.0f} of {of:.0f}" for rank, of in places)
