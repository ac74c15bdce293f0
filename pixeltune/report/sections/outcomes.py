"""The outcomes of the trials, and their reasons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pixeltune.format import counted, listed, shortened
from pixeltune.report.snapshot import Snapshot
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import RANKED
from pixeltune.results.schema import Status

_LINES_OF_TRACEBACK = 16
_MOST_GROUPS = 40
_WITHOUT_WORDS = "no reason is known"


@dataclass(frozen=True)
class Group:
    """Trials of one outcome and reason. reason: of the first of them. traceback: the end of its traceback, or ""."""

    status: str
    count: int
    reason: str
    trials: str
    example: str
    traceback: str


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a search. groups: the most frequent first. caption: what the table holds."""

    groups: Sequence[Group]
    caption: str


def outcomes(snapshot: Snapshot) -> Outcomes:
    """Return trials without a result, and finished ones with a reason, grouped by reason without its numbers."""
    shown = [row for row in snapshot.rows if _is_listed(row)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in shown:
        groups.setdefault((row["status"], _kind(row["reason"] or _WITHOUT_WORDS)), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    caption = (
        f"{counted(len(shown), 'trial')} by outcome and reason; of reasons that differ in numbers alone the first."
    )
    if len(ordered) > _MOST_GROUPS:
        caption += f" The {_MOST_GROUPS} most frequent of {len(ordered):,}."
    return Outcomes([_group(status, rows) for (status, _), rows in ordered[:_MOST_GROUPS]], caption)


def _is_listed(row: Row) -> bool:
    if row["status"] in RANKED:
        return bool(row["reason"])
    return bool(row["status"] != Status.RUNNING)


def _kind(reason: str) -> str:
    return re.sub(r"\d[\d,.:]*", "#", " ".join(reason.split()))


def _group(status: str, rows: Sequence[Row]) -> Group:
    first = rows[0]
    lines = (first["traceback"] or "").strip().splitlines()
    cut = ["…"] if len(lines) > _LINES_OF_TRACEBACK else []
    return Group(
        status=str(status),
        count=len(rows),
        reason=shortened(first["reason"] or _WITHOUT_WORDS, 400),
        trials=listed(row["trial"] for row in rows),
        example=first["trial"],
        traceback="\n".join([*cut, *lines[-_LINES_OF_TRACEBACK:]]),
    )
