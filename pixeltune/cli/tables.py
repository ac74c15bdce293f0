"""Tables for a terminal of any width: a number is never cut; columns fold or are left out, with a line that says which.

`fitted` decides the widths and is pure; `print_table` prints. A table that is not for a terminal is printed whole: one
line a row, as wide as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ALWAYS = 0
"""The priority of a column that is in every table: names of trials, and numbers of record."""

GAP = 2
"""Spaces between two columns."""

MISSING = "–"
"""A cell without a value."""

WIDER = "a wider terminal or a pipe shows them"


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A column of a table.

    Args:
        title: Its title.
        priority: `ALWAYS`, or the order in which columns are left out of a narrow table: the greatest first, and of
            equal ones the rightmost.
        align: The side at which the cells begin.
        least: The fewest characters of a line for text that may fold into several; None for cells that must not.
    """

    title: str
    priority: int = ALWAYS
    align: Literal["left", "right"] = "right"
    least: int | None = None


@dataclass(frozen=True, kw_only=True)
class FittedTable:
    """A table that fits a width.

    Attributes:
        columns: The columns that are shown.
        widths: The characters of each.
        rows: Their cells.
        hidden: The titles of the columns that are left out.
    """

    columns: tuple[TableColumn, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    hidden: tuple[str, ...]

    @property
    def width(self) -> int:
        """Return the characters of a line."""
        return _total(self.widths)


def fitted(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], width: int | None) -> FittedTable:
    """Return the table in at most so many characters, if the columns that are always shown fit.

    First titles fold between words, and text folds to the `least` of its column; then columns are left out by
    priority. What is left of the width goes to the columns that folded.

    Args:
        columns: All columns.
        rows: The cells of each row, in the order of the columns.
        width: The characters of a line; None for a table of any width.

    Returns:
        The table. It is wider than `width` only where the columns that are always shown are.
    """
    wanted = [_natural_width(column, [row[place] for row in rows]) for place, column in enumerate(columns)]
    least = [_least_width(column, [row[place] for row in rows]) for place, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while width is not None and _total([least[place] for place in shown]) > width:
        able = [place for place in shown if columns[place].priority != ALWAYS]
        if not able:
            break
        shown.remove(max(able, key=lambda place: (columns[place].priority, place)))
    widths = _spread([least[place] for place in shown], [wanted[place] for place in shown], width)
    return FittedTable(
        columns=tuple(columns[place] for place in shown),
        widths=tuple(widths),
        rows=tuple(tuple(row[place] for place in shown) for row in rows),
        hidden=tuple(column.title for place, column in enumerate(columns) if place not in shown),
    )


def print_table(
    out: Console,
    columns: Sequence[TableColumn],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    see: str = WIDER,
    more: str = "",
) -> None:
    """Print a table that fits the terminal, then which columns are left out, and where it stops.

    Args:
        out: Where to print.
        columns: All columns.
        rows: The cells of each row, in the order of the columns; plain text, without markup.
        title: A line above.
        see: How to see the columns that are left out.
        more: The line about rows that are left out; see `more_rows`.
    """
    table = fitted(columns, rows, out.width if out.is_terminal else None)
    if title:
        out.print(title, style="bold", highlight=False, soft_wrap=True, markup=False)
    if out.is_terminal:
        out.print(_drawn(table), crop=False)
    else:
        with out.capture() as text:
            out.print(_drawn(table), crop=False)
        for line in text.get().splitlines():
            out.print(line.rstrip(), highlight=False, soft_wrap=True, markup=False)
    if more:
        out.print(more, highlight=False, soft_wrap=True, markup=False)
    if table.hidden:
        line = f"Not shown in {out.width} columns: {', '.join(table.hidden)}; {see}."
        out.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)


def more_rows(left_out: int, how: str) -> str:
    """Return the line below a table that stops, such as `… 10 more; --all shows them`; "" where it does not.

    Args:
        left_out: The number of rows that are not shown.
        how: What shows them.
    """
    if left_out <= 0:
        return ""
    return f"… {left_out:,} more; {how} shows {'it' if left_out == 1 else 'them'}"


def _drawn(table: FittedTable) -> Table:
    require_packages("a table", "rich")
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP // 2), width=table.width)
    for column, width in zip(table.columns, table.widths, strict=True):
        view.add_column(Text(column.title), justify=column.align, width=width, overflow="fold", vertical="top")
    for row in table.rows:
        view.add_row(*map(Text, row))
    return view


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _natural_width(column: TableColumn, cells: Sequence[str]) -> int:
    return max(map(_cells, [column.title, *cells]))


def _least_width(column: TableColumn, cells: Sequence[str]) -> int:
    """Return the width below which a number or a word of the title would be cut."""
    words = max(map(_cells, column.title.split()), default=0)
    longest = max(map(_cells, cells), default=0)
    return max(words, longest if column.least is None else min(column.least, longest))


def _spread(least: Sequence[int], wanted: Sequence[int], width: int | None) -> list[int]:
    """Return the widths of columns: the least, and of what is left over each an equal part up to what it wants."""
    if width is None:
        return list(wanted)
    widths = list(least)
    left = width - _total(widths)
    while left > 0 and (narrow := [place for place, own in enumerate(widths) if own < wanted[place]]):
        for place in narrow[:left]:
            widths[place] += 1
        left -= min(left, len(narrow))
    return widths


def _cells(text: str) -> int:
    """Return the width of a text on a terminal, where some characters take two columns."""
    from rich.cells import cell_len

    return cell_len(text)
