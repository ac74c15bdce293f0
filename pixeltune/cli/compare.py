"""`pixeltune compare`: rows of ours beside the published table."""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.cli.app import EXIT_OK, add_storage, console, positive, say, writing
from pixeltune.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


def add_verbs(verbs: Any) -> None:
    """`pixeltune compare`."""
    parser = verbs.add_parser("compare", help="results beside published ones")
    parser.add_argument("search", nargs="?", metavar="SEARCH", help="one search [all of the storage]")
    parser.add_argument("--top", type=positive, default=1, metavar="K", help="best trials of each search [1]")
    parser.add_argument("--csv", metavar="FILE", help="write the whole table as CSV")
    parser.add_argument("--own", metavar="FILE", help="CSV with published rows of yours [STORAGE/published.csv]")
    add_storage(parser)
    parser.set_defaults(verb=compare)


def compare(options: argparse.Namespace) -> int:
    """Print, or write, the comparison."""
    from pixeltune import files
    from pixeltune.results.compare import OWN_TABLE
    from pixeltune.results.compare import compare as beside
    from pixeltune.results.frames import read_results
    from pixeltune.results.judge import RANKED

    location = files.join(options.storage, options.search) if options.search else options.storage
    rows = read_results(location)
    has_number = rows["valid_bits_per_dim"].notna() | rows["test_bits_per_dim"].notna()
    rows = rows[has_number & rows["status"].isin([str(status) for status in RANKED])]
    if rows.empty:
        raise StoreError(f"there must be results to compare, but {location} holds none")
    beside_results = files.join(options.storage, OWN_TABLE)
    own = options.own or (beside_results if files.exists(beside_results) else None)
    # Runs of a final have no validation: they stay in their order, which is that of the search, best first.
    ranked = rows.assign(
        is_out=_out_of_bounds(rows, location), is_refuted=rows["bits_verified"].eq(False).fillna(False)
    )
    ranked = ranked.sort_values(["is_out", "is_refuted", "valid_bits_per_dim"], kind="stable").drop(
        columns=["is_out", "is_refuted"]
    )
    best = ranked.groupby("search", observed=True).head(options.top)
    table = beside(best, own)
    if options.csv:
        with writing(options.csv):
            files.write_whole(options.csv, table.to_csv(index=False).encode())
        say(f"Wrote {len(table):,} rows to {options.csv}")
        return EXIT_OK
    out = console()
    if own:
        out.print(f"With the rows of {own}.", highlight=False)
    for _, part in table.groupby(["search", "trial", "metric"], observed=True, sort=False):
        known = part.astype(object).where(part.notna(), None)
        _print(out, known.to_dict("records"))
    if table.empty:
        names = ", ".join(sorted({str(name) for name in best["data.name"]}))
        out.print(f"No published results for {names}.", highlight=False)
    return EXIT_OK


def _out_of_bounds(rows: pd.DataFrame, location: str) -> list[bool]:
    """Whether each row breaks the constraints of its search: such a trial is not its best."""
    from pixeltune.results.store import find_searches
    from pixeltune.space.metrics import METRICS, not_met

    bounds = {store.search: store.manifest().constraints for store in find_searches(location) if store.exists()}
    names = ["search", *METRICS]
    plain = rows[names].astype(object)
    records = plain.where(plain.notna(), None).itertuples(index=False, name=None)
    known = [dict(zip(names, values, strict=True)) for values in records]
    return [bool(not_met(bounds.get(row["search"], {}), row)) for row in known]


def _print(out: Console, records: Sequence[Mapping[Hashable, Any]]) -> None:
    """One number of ours beside the published ones, the comparable first; what all differ in is said once."""
    from rich.table import Table

    reasons = [str(record["why_not"]).split("; ") if record["why_not"] else [] for record in records]
    shared = [reason for reason in reasons[0] if all(reason in others for others in reasons)]
    first = records[0]
    unit = "bits/dim" if first["metric"] == "bits_per_dim" else "nats"
    hours = "" if first["our_gpu_hours"] is None else f", {first['our_gpu_hours']:.3g} GPU-hours"
    kind = "test" if first["evaluated_split"] == "test" else "validation"
    verdict = f"; not comparable: {'; '.join(shared)}" if shared else ""
    ours = f"{'at most ' if first['is_bound'] else ''}{first['ours']:.4f} {unit} ({kind})"
    title = f"{first['search']}/{first['trial']}: {ours}{hours}{_rank(records)}{verdict}"
    view = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for name in ("published", "gap", "GPU-hours"):
        view.add_column(name, justify="right", no_wrap=True)
    for name in ("model", "source", "not comparable; caveats"):
        view.add_column(name, overflow="fold")
    ordered = sorted(zip(records, reasons, strict=True), key=lambda pair: (len(pair[1]), pair[0]["published"]))
    for record, why_not in ordered:
        own = [reason for reason in why_not if reason not in shared]
        notes = [f"not comparable: {'; '.join(own)}"] if own else ["comparable"] * (not why_not)
        notes += [f"caveats: {record['caveats']}"] if record["caveats"] else []
        source = ", ".join(str(part) for part in (record["arxiv"], record["where"]) if part)
        view.add_row(
            f"{record['published']:g}",
            "" if record["gap"] is None else f"{record['gap']:+.3f}",
            "" if record["gpu_hours"] is None else f"{record['gpu_hours']:,.4g}",
            f"{record['model']} ({record['year']})",
            source,
            "; ".join(notes),
        )
    out.print(view, highlight=False)
    out.print()


def _rank(records: Sequence[Mapping[Hashable, Any]]) -> str:
    """The place among the comparable, which is one and the same beside each of them."""
    places = {(record["rank"], record["rank_of"]) for record in records if record["rank"] is not None}
    return "".join(f"; it would be number {rank:.0f} of {of:.0f}" for rank, of in places)
