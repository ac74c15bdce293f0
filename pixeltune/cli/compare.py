"""`pixeltune compare`: rows of ours beside the published table."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.app import EXIT_OK, add_storage, console, positive, say, writing
from pixeltune.errors import StoreError

_COLUMNS = {
    "trial": "trial",
    "metric": "metric",
    "ours": "ours",
    "published": "published",
    "gap": "gap",
    "rank": "rank",
    "model": "published model",
    "year": "year",
    "arxiv": "arXiv",
    "where": "where",
    "comparable": "comparable",
    "why_not": "why not",
    "caveats": "caveats",
}


def add_verbs(verbs: Any) -> None:
    """`pixeltune compare`."""
    parser = verbs.add_parser("compare", help="results beside published ones")
    parser.add_argument("search", nargs="?", metavar="SEARCH", help="one search [all of the storage]")
    parser.add_argument("--top", type=positive, default=1, metavar="K", help="best trials of each search [1]")
    parser.add_argument("--csv", metavar="FILE", help="write the whole table as CSV")
    add_storage(parser)
    parser.set_defaults(verb=compare)


def compare(options: argparse.Namespace) -> int:
    """Print, or write, the comparison."""
    from pixeltune import files
    from pixeltune.results.compare import compare as beside
    from pixeltune.results.frames import read_results

    location = files.join(options.storage, options.search) if options.search else options.storage
    rows = read_results(location)
    rows = rows[rows["valid_bits_per_dim"].notna() | rows["test_bits_per_dim"].notna()]
    if rows.empty:
        raise StoreError(f"there must be results to compare, but {location} holds none")
    # Runs of a final have no validation: they stay in their order, which is that of the search, best first.
    best = rows.sort_values("valid_bits_per_dim", kind="stable").groupby("search", observed=True).head(options.top)
    table = beside(best)
    if options.csv:
        with writing(options.csv):
            files.write_whole(options.csv, table.to_csv(index=False).encode())
        say(f"Wrote {len(table):,} rows to {options.csv}")
        return EXIT_OK
    shown = table.sort_values(["trial", "comparable", "published"], ascending=[True, False, True])
    out = console()
    from rich.table import Table

    for search, part in shown.groupby("search", observed=True):
        view = Table(title=str(search), title_justify="left", box=None, header_style="bold", pad_edge=False)
        for title in _COLUMNS.values():
            view.add_column(title, overflow="fold")
        for record in part.to_dict("records"):
            view.add_row(*(_cell(record[name]) for name in _COLUMNS))
        out.print(view)
    if table.empty:
        names = ", ".join(sorted({str(name) for name in best["data.name"]}))
        out.print(f"No published results for {names}.", highlight=False)
    return EXIT_OK


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN is unlike itself
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
