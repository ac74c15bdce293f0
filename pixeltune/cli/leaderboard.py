"""`pixeltune leaderboard`: the ranked trials of a search, or the means of a final, as a table, CSV, JSON or LaTeX."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_storage, console, positive, say
from pixeltune.cli.completion import complete_searches
from pixeltune.cli.tables import MISSING, TableColumn, more_rows, print_table
from pixeltune.format import counted, enumerated, listed

if TYPE_CHECKING:
    from pixeltune.results.final_selection import Selection
    from pixeltune.results.manifest import SearchManifest
    from pixeltune.results.parquet_io import Row
    from pixeltune.results.store import SearchStore

TOP = 10
"""The rows of a table; files have all of them."""

_LIKELIHOODS = ("valid_bits_per_dim", "valid_nats")
_DIGITS = {
    "valid_bits_per_dim": ".4f",
    "valid_nats": ".2f",
    "below_baseline_percent": ".1f",
    "seconds": ".1f",
    "sample_images_per_second": ".2f",
}


def add_verb(verbs: Any) -> None:
    """Add `pixeltune leaderboard`."""
    parser = verbs.add_parser(
        "leaderboard",
        help="the ranked trials of a search, or the test results of a final",
        examples=("pixeltune leaderboard digits_quick --top 20", "pixeltune leaderboard digits_quick-final --latex"),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="a search, a final or a training in the storage")
    search.completer = complete_searches  # argcomplete reads it
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--top", type=positive, metavar="N", help=f"the best N [{TOP}, and all as CSV, JSON or LaTeX]")
    rows.add_argument("--all", action="store_true", help="all that are ranked")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV with all digits")
    form.add_argument("--json", action="store_true", help="print a JSON array of rows with all digits")
    form.add_argument("--latex", action="store_true", help="print a table for a LaTeX article, with booktabs")
    add_storage(parser)
    parser.set_defaults(verb=leaderboard)


def leaderboard(options: argparse.Namespace) -> int:
    """Print the leaderboard; nothing is written and no lock is held."""
    from pixeltune.results.final_statistics import leaderboard_of
    from pixeltune.results.ranking import counted_statuses
    from pixeltune.results.ranking import leaderboard as ranked
    from pixeltune.results.store import SearchStore

    store = SearchStore(options.storage, options.search)
    manifest = store.manifest()
    rows = store.trials()
    final = manifest.final
    if final is None:
        keys = list(manifest.searched())
        places = ranked(rows, manifest.objectives[0], None, keys, manifest.constraints)
        columns, cells = search_table(places, keys, manifest.objectives, manifest.constraints)
    else:
        places = leaderboard_of(store)
        columns, cells = final_table(places, final)
    is_file = options.csv or options.json or options.latex
    top = options.top or (len(places) if options.all or is_file else TOP)
    if options.csv:
        for line in _csv(places[:top]):
            say(line)
    elif options.json:
        say(json.dumps(places[:top]))
    elif options.latex:
        for line in latex(columns, cells[:top]):
            say(line)
    else:
        say(f"{'Trials' if final is None else 'Runs'} of {options.search}: {counted_statuses(rows) or 'none'}.")
        if places:
            print_table(console(), columns, cells[:top], more=more_rows(len(places) - top, "--all"))
        for line in _notes(store, manifest, rows, places):
            say(line)
    return EXIT_OK


def search_table(
    places: Sequence[Row], keys: Sequence[str], objectives: Sequence[str], constraints: Mapping[str, float]
) -> tuple[list[TableColumn], list[list[str]]]:
    """Return the columns and cells of a search's leaderboard for `print_table`.

    The usual columns come first, then objectives and constraints that are not among them.

    Args:
        places: Rows of `results.ranking.leaderboard`.
        keys: The configuration keys that vary.
        objectives: The metrics that the search optimises; their columns are always shown.
        constraints: Metric → bound.
    """
    from pixeltune.space.keys import short_name

    columns = {
        "rank": TableColumn(title="#", priority=5),
        "trial": TableColumn(title="trial", align="left"),
        "status": TableColumn(title="status", align="left", priority=6),
        **{
            key: TableColumn(
                title=short_name(key),
                priority=2,
                align="left" if any(isinstance(place.get(key), str) for place in places) else "right",
            )
            for key in keys
        },
        "valid_bits_per_dim": TableColumn(title="bits/dim"),
        "valid_nats": TableColumn(title="nats", priority=8),
        "below_baseline_percent": TableColumn(title="% below baseline", priority=7),
        "num_parameters": TableColumn(title="parameters", priority=4),
        "images_seen": TableColumn(title="images", priority=9),
        "seconds": TableColumn(title="seconds", priority=10),
    }
    if any("seeds" in place for place in places):
        columns["seeds"] = TableColumn(title="seeds", priority=1)
    if any((place.get("space_version") or 1) > 1 for place in places):
        columns["space_version"] = TableColumn(title="space", priority=8)
    if any(place.get("continues_attempt") is not None for place in places):
        columns["images_seen"] = TableColumn(title="images", priority=1)
        columns["continues_attempt"] = TableColumn(title="continues attempt", priority=7)
    columns |= {name: TableColumn(title=name, priority=3) for name in constraints if name not in columns}
    columns |= {name: TableColumn(title=_title(columns, name)) for name in objectives}
    if any(place["bits_verified"] is False for place in places):
        columns["bits_verified"] = TableColumn(title="confirmed", priority=1)
    if constraints:
        columns["out_of_bounds"] = TableColumn(title="out of bounds", align="left", priority=1, least=24)
    cells = [[_table_cell(name, place) for name in columns] for place in places]
    return list(columns.values()), cells


def front_table(
    front: Sequence[Row], keys: Sequence[str], objectives: Sequence[str]
) -> tuple[list[TableColumn], list[list[str]]]:
    """Return the columns and cells of the trials that no other beats, for `print_table`.

    Args:
        front: Rows of `results.ranking.pareto_front`.
        keys: The configuration keys that vary.
        objectives: The metrics that the search optimises; their columns are always shown.
    """
    from pixeltune.space.keys import short_name

    columns = {
        "trial": TableColumn(title="trial", align="left"),
        **{name: TableColumn(title=name) for name in objectives},
        **({"seeds": TableColumn(title="seeds", priority=1)} if any("seeds" in row for row in front) else {}),
        **{key: TableColumn(title=short_name(key), priority=1) for key in keys},
    }
    cells = [[_table_cell(name, row) for name in columns] for row in front]
    return list(columns.values()), cells


def final_table(places: Sequence[Row], selection: Selection) -> tuple[list[TableColumn], list[list[str]]]:
    """Return the columns and cells of a final's leaderboard for `print_table`.

    Args:
        places: Rows of `results.final_statistics.final_leaderboard`.
        selection: The choice that the final was made with.
    """
    from pixeltune.report.texts import is_likelihood
    from pixeltune.results.ranking import bound_mark

    columns = [
        TableColumn(title="#", priority=4),
        TableColumn(title="trial", align="left"),
        TableColumn(title=selection.objective, priority=3),
        TableColumn(title="seeds", priority=2),
        TableColumn(title="test bits/dim"),
        TableColumn(title="nats", priority=5),
        TableColumn(title="difference", priority=1),
        TableColumn(title="verdict", align="left", priority=1, least=14),
    ]
    values = {item.trial: item.value for item in selection.chosen}
    cells = []
    for place in places:
        mark = bound_mark(place)
        apart = "" if place["rank"] == 1 else f"{place['difference_bits_per_dim']:+.5f}"
        cells.append(
            [
                str(place["rank"]),
                place["from_trial"],
                f"{mark if is_likelihood(selection.objective) else ''}{values[place['from_trial']]:.6g}",
                str(place["seeds"]),
                f"{mark}{place['bits_per_dim']:.5f}{_error(place['bits_per_dim_seeds_error'])}",
                f"{mark}{place['nats']:.3f}",
                f"{apart}{_error(place['difference_bits_per_dim_error'])}",
                place["verdict"],
            ]
        )
    return columns, cells


def latex(columns: Sequence[TableColumn], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a `tabular` for an article, with every column."""
    from pixeltune.paper.works import escape_tex

    aligned = "".join("l" if column.align == "left" else "r" for column in columns)
    yield r"% Needs \usepackage{booktabs}."
    yield rf"\begin{{tabular}}{{{aligned}}}"
    yield r"\toprule"
    yield " & ".join(escape_tex(column.title) for column in columns) + r" \\"
    yield r"\midrule"
    for row in cells:
        yield " & ".join(escape_tex(cell) for cell in row) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _csv(places: Sequence[Row]) -> list[str]:
    """Return the lines of a CSV file, with all digits; none without rows, which alone know the columns."""
    if not places:
        return []
    text = io.StringIO()
    writer = csv.DictWriter(text, list(places[0]), lineterminator="\n")
    writer.writeheader()
    for place in places:
        writer.writerow({name: " ".join(v) if isinstance(v, list) else v for name, v in place.items()})
    return text.getvalue().splitlines()


def _notes(store: SearchStore, manifest: SearchManifest, rows: Sequence[Row], places: Sequence[Row]) -> Iterator[str]:
    """Yield what a reader of the table must know: the front, unconfirmed rows, and that none may be the best."""
    if manifest.final is not None:
        yield from _notes_of_final(places, manifest.final)
        return
    yield from front_notes(rows, manifest.objectives, manifest.constraints)
    by_trial = {row["trial"]: row for row in rows}
    for place in places:
        if place["bits_verified"] is False:
            yield f"Trial {place['trial']} is not confirmed: {by_trial[place['trial']]['bits_unverified_reason']}."
    yield from repeat_notes(places, objectives=manifest.objectives)
    if not places:
        yield "No trial has a number yet." if store.holder() else "No trial has a number."
    elif all(place["rank"] is None for place in places):
        yield "No trial keeps to the constraints, with bits that a code confirms."


def repeat_notes(places: Sequence[Row], objectives: Sequence[str]) -> Iterator[str]:
    """Yield, for a search with repeats, what the numbers mean, and which trials may yet become the best.

    Args:
        places: Rows of `results.ranking.leaderboard`.
        objectives: The metrics that the search optimises.
    """
    if not any("seeds" in place for place in places):
        return
    yield "Numbers are means over seeds, ± one standard error; the best of many is a little optimistic."
    waiting = [
        place
        for place in places
        if place["rank"] is None
        and place["status"] == "finished"
        and place["seeds_left"]
        and not place["out_of_bounds"]
        and place["bits_verified"] is not False
    ]
    for place in waiting:
        of = place["seeds"] + place["seeds_left"]
        yield (
            f"Trial {place['trial']} has a better {objectives[0]} with {place['seeds']} of {of} seeds; it counts as "
            "the best once it has all."
        )


def front_notes(rows: Sequence[Row], objectives: Sequence[str], constraints: Mapping[str, float]) -> Iterator[str]:
    """Yield, for several objectives, which finished trials no other trial beats in all of them."""
    from pixeltune.results.ranking import pareto_front

    if len(objectives) > 1:
        best = [row["trial"] for row in pareto_front(rows, objectives, constraints)]
        what = f"{counted(len(best), 'finished trial')} that no other beats"
        yield f"Front of {enumerated(objectives)}: {what}{': ' if best else ''}{listed(best, 20)}."


def _notes_of_final(places: Sequence[Row], selection: Selection) -> Iterator[str]:
    from pixeltune.results.final_statistics import first_choice

    if not places:
        yield "No run has finished."
        return
    yield from final_legend(places)
    yield f"First on validation: {first_choice(places, selection)['from_trial']}; the test set chooses none."


def final_legend(places: Sequence[Row]) -> Iterator[str]:
    """Yield what ± and the verdicts of a final's table mean, where there are several configurations."""
    from pixeltune.results.final_statistics import LEVEL

    if len(places) > 1:
        yield (
            "± is one standard error: of bits/dim over seeds, of the difference over seeds and images. Clearly worse: "
            f"outside of the {1 - LEVEL:.0%} intervals of both noises, for all pairs at once."
        )


def _title(columns: Mapping[str, TableColumn], name: str) -> str:
    return columns[name].title if name in columns else name


def _mark(name: str, place: Row) -> str:
    from pixeltune.results.ranking import bound_mark

    return bound_mark(place) if name in _LIKELIHOODS and place.get(name) is not None else ""


def _table_cell(name: str, place: Row) -> str:
    """Return the cell of a trial; a mean over several seeds has its standard error."""
    error = place.get(f"{name}_error")
    is_noise = error is not None and (error > 0 or name in _LIKELIHOODS)  # seeds agree in the parameters
    apart = f" ± {format(error, _DIGITS.get(name, '.2g'))}" if is_noise else ""
    return _mark(name, place) + _cell(name, place.get(name)) + apart


def _cell(name: str, value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, _DIGITS.get(name, ".3g")) if math.isfinite(value) else str(value)
    return f"{value:,}" if isinstance(value, int) and name != "rank" else str(value)


def _error(error: float | None) -> str:
    return "" if error is None else f" ± {error:.5f}"
