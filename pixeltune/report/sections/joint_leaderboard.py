"""The table of several searches: the ranked trials of all, in one order, where their numbers measure the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pixeltune.errors import StoreError
from pixeltune.format import counted, listed
from pixeltune.report.sections.leaderboard import Board, LeaderboardColumn, Line, record_cell, short_title
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, notes_on_partial, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import best_first, figures_of, require_same

_COMMON = "valid_bits_per_dim"
"""The number by which trials of searches with different objectives are ranked."""

_NAMES = ("model.family", "likelihood.name")
_METRICS = ("num_parameters", "images_seen", "seconds", "sample_images_per_second")
_TEXTS = ("search", "trial", "status", *_NAMES)


@dataclass(frozen=True)
class JointLeaderboard:
    """The leaderboard of several searches. headline: its best trial. counts: its trials by status."""

    headline: str
    board: Board
    counts: dict[str, int]


def joint_leaderboard(snapshots: Sequence[Snapshot], top: int) -> JointLeaderboard:
    """Return the trials of all searches that have a rank in their own, the best first; the best `top` are marked.

    Each search's own constraints decide which of its trials have a rank. Finals are left out: they hold means on the
    test set. Searches of different images are not ranked together; the notes then say what differs.
    """
    searches = [snapshot for snapshot in snapshots if not snapshot.is_final]
    metric, notes = _metric(searches), [*_left_out(snapshots)]
    ranked = [row | {"search": snapshot.search} for snapshot in searches for row in snapshot.best(len(snapshot.rows))]
    ranked = [row for row in ranked if row[metric] is not None]
    try:
        require_same(ranked)
    except StoreError as error:
        notes.insert(0, f"The searches are not ranked together: {error}.")
        ranked = []
    if not ranked:
        return JointLeaderboard(notes[0] if notes else "No trial has a result to rank.", Board([], [], notes), {})
    ordered = best_first(ranked, metric, ties=("search", "trial"))
    records = [
        row | figures_of(row, []) | {"search": row["search"], "rank": rank} for rank, row in enumerate(ordered, start=1)
    ]
    names = ["rank", metric, "search", "trial", "status", *_NAMES, *_METRICS]
    columns = [
        LeaderboardColumn(name, short_title(name), name in _TEXTS, is_pinned=name in ("rank", metric))
        for name in names
        if any(record.get(name) is not None for record in records)
    ]
    lines = [
        Line(str(record["status"]), [record_cell(column.name, record) for column in columns], record["rank"] <= top)
        for record in records
    ]
    notes = [f"All trials with a rank in their own search, by {title_of(metric)}.", *_meanings(ranked), *notes]
    best = records[0]
    number = cell(metric, best[metric], is_bound=bool(best["is_bound"]))
    headline = (
        f"Best of {counted(len(records), 'ranked trial')} in {len(searches)} searches by "
        f"{title_of(metric)}: {best['search']}/{best['trial']} with {number}. "
        "A number that is the best of many by these very images is a little optimistic."
    )
    return JointLeaderboard(headline, Board(columns, lines, notes), dict(Counter(line.status for line in lines)))


def _metric(searches: Sequence[Snapshot]) -> str:
    objectives = {(snapshot.objective, snapshot.sign) for snapshot in searches}
    return next(iter(objectives))[0] if len(objectives) == 1 else _COMMON


def _meanings(rows: Sequence[Row]) -> Iterator[str]:
    yield from notes_on_partial({row["status"] for row in rows})
    if any(row["is_bound"] for row in rows):
        yield "≤ marks upper bounds: the likelihood itself is not known."
    yield "★ marks the best."


def _left_out(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    finals = [snapshot.search for snapshot in snapshots if snapshot.is_final]
    if finals:
        yield f"Not here: {listed(finals)}, whose numbers are means on the test set."
    empty = [snapshot.search for snapshot in snapshots if not snapshot.is_final and not snapshot.best(1)]
    if empty:
        yield f"Without a ranked trial: {listed(empty)}."
