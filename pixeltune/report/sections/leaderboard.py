"""The table of trials: the leaderboard, then every trial that has no rank, with the numbers of its row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pixeltune.format import counted, number, shortened
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, notes_on_partial, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import figures_of
from pixeltune.results.schema import Status

_TEXTS = ("trial", "status", "reason", "out_of_bounds", "from_trial", "repeat_of")
_METRICS = (
    *("valid_bits_per_dim", "valid_nats", "below_baseline_percent", "num_parameters", "images_seen", "seconds"),
    *("sample_images_per_second", "peak_memory_bytes"),
)
_FINAL_METRICS = ("test_bits_per_dim", "test_nats", "num_parameters", "images_seen", "seconds")
_LAST = ("out_of_bounds", "bits_verified", "reason")
_HIDDEN = ("peak_memory_bytes", "reason")
"""Columns that a reader shows when they are needed: the reasons are also in the outcomes."""
_SHORT = {
    "rank": "#",
    "valid_bits_per_dim": "bits/dim",
    "valid_nats": "nats/image",
    "out_of_bounds": "out of bounds",
    "bits_verified": "confirmed",
    "images_seen": "images",
    "sample_images_per_second": "samples/s",
    "from_trial": "retrains",
    "valid_bits_per_dim_error": "± bits/dim",
    "valid_nats_error": "± nats/image",
    "repeat_of": "repeats",
}


@dataclass(frozen=True)
class Cell:
    """A cell. text: as shown. value: as in the results, by which it sorts; None where there is none."""

    text: str
    value: Any


@dataclass(frozen=True)
class LeaderboardColumn:
    """A column. name: of the results' column. is_text: sorted by letters, and aligned to the left. shown: at first.

    is_pinned: whether it stays in view where the table is scrolled to the side.
    """

    name: str
    title: str
    is_text: bool
    shown: bool = True
    is_pinned: bool = False


@dataclass(frozen=True)
class Line:
    """A trial: its status, by which it can be hidden, and its cells. is_best: whether the report highlights it."""

    status: str
    cells: Sequence[Cell]
    is_best: bool = False


@dataclass(frozen=True)
class Board:
    """The table; each column has a value in some row. notes: what its order and its numbers mean."""

    columns: Sequence[LeaderboardColumn]
    lines: Sequence[Line]
    notes: Sequence[str]


def board(snapshot: Snapshot, top: int = 0) -> Board:
    """Return every trial of a search once: ranked ones in the order of `leaderboard`, then the others by number.

    top: number of best trials to mark.
    """
    ranked = {place["trial"] for place in snapshot.places}
    rows = {row["trial"]: row for row in snapshot.rows}
    records = [rows[place["trial"]] | place for place in snapshot.places]
    records += [row | figures_of(row, []) for row in snapshot.rows if row["trial"] not in ranked]
    columns = [
        column for column in _columns(snapshot) if any(record.get(column.name) is not None for record in records)
    ]
    best = {row["trial"] for row in snapshot.best(top)}
    lines = [
        Line(str(record["status"]), [record_cell(column.name, record) for column in columns], record["trial"] in best)
        for record in records
    ]
    return Board(columns, lines, [*_notes(snapshot), *_mark(len(best))])


def _columns(snapshot: Snapshot) -> Iterator[LeaderboardColumn]:
    manifest = snapshot.manifest
    if snapshot.is_final:
        first = ["trial", "test_nats" if snapshot.unit == "nats" else "test_bits_per_dim"]
        names = [*first, "status", "from_trial", "seed", *_FINAL_METRICS, "bits_verified", "reason"]
    else:
        metrics = [*_METRICS, *manifest.objectives, *manifest.constraints]
        first = ["rank", "trial", snapshot.objective]
        noise = ["seeds", *dict.fromkeys(f"{name}_error" for name in (snapshot.objective, f"valid_{snapshot.unit}"))]
        names = [*first, f"valid_{snapshot.unit}", *noise, "repeat_of"]
        names += ["status", *manifest.searched(), *metrics, *_LAST]
    asked = (*manifest.objectives, *manifest.constraints)
    hidden = [*_HIDDEN, *(f"{split}_nats" for split in ("valid", "test") if snapshot.unit != "nats")]
    hidden += [] if any(row["bits_verified"] is False for row in snapshot.rows) else ["bits_verified"]
    for name in dict.fromkeys(names):
        is_text = name in _TEXTS or any(isinstance(row.get(name), str | bool) for row in snapshot.rows)
        shown = name not in hidden or name in asked
        yield LeaderboardColumn(name, short_title(name), is_text, shown, name in first)


def short_title(name: str) -> str:
    """Return the title of a column of a table of trials."""
    return _SHORT.get(name) or title_of(name)


def record_cell(name: str, record: Row) -> Cell:
    """Return the cell of a trial; record: its row with the figures of a leaderboard."""
    value = record.get(name)
    match name:
        case "status":
            return Cell(_status(record), value)
        case "reason":
            return Cell(shortened(value or ""), value)
        case "seconds":  # zero where a trial did not report them
            return Cell(cell(name, value or None), value)
        case "seed":
            return Cell(str(value), value)
    return Cell(cell(name, value, is_bound=bool(record["is_bound"])), value)


def _status(record: Row) -> str:
    """Return the status; of a trial that did not train to its end, with the images it had seen."""
    if record["status"] == Status.FINISHED or not record["images_seen"]:
        return str(record["status"])
    return f"{record['status']} at {number(record['images_seen'])}"


def _mark(best: int) -> Iterator[str]:
    if best:
        yield f"★ marks the best {counted(best, 'trial')}." if best > 1 else "★ marks the best trial."


def _notes(snapshot: Snapshot) -> Iterator[str]:
    statuses = {row["status"] for row in snapshot.rows}
    if snapshot.is_final:
        yield "One line a run; the table of means over seeds is above."
        return
    yield f"Ranked by {title_of(snapshot.objective)}, {'lowest' if snapshot.sign > 0 else 'highest'} first."
    yield "A trial's number is that of its best report on the validation images; nothing here has seen the test set."
    if snapshot.manifest.repeats > 1:
        yield (
            "Ranked numbers are means over the seeds of a configuration; ± is one standard error. A configuration "
            f"counts as the best once all of its {snapshot.manifest.repeats} seeds have ended; repeats have no rank."
        )
    yield from notes_on_partial(statuses)
    if Status.RUNNING in statuses:
        yield "Running trials are shown with their best report so far, without a rank."
    if snapshot.is_bound:
        yield "≤ marks upper bounds: the likelihood itself is not known."
    if snapshot.manifest.constraints:
        yield "Trials that break a constraint come after the others, without a rank."
