"""Tables that fit a terminal: which columns fold, which are left out, and that no number is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pixeltune.cli.tables import ALWAYS, TableColumn, fitted, more_rows, print_table

COLUMNS = (
    TableColumn(title="#", priority=2),
    TableColumn(title="trial", align="left"),
    TableColumn(title="status", priority=3, align="left"),
    *(TableColumn(title=f"key_{place}", priority=5) for place in range(8)),
    TableColumn(title="bits/dim"),
    TableColumn(title="% below baseline", priority=4),
    TableColumn(title="out of bounds", priority=1, align="left", least=20),
)
NOTE = "num_parameters 2,000,000 above 1,000,000; sample_images_per_second unknown"
ROWS = [
    [str(place), f"{place:05d}", "finished", *["0.001234"] * 8, f"≤ {3 + place / 7:.4f}", "12.3", NOTE]
    for place in range(3)
]


def _lines(width: int | None, *, is_terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    print_table(console, COLUMNS, ROWS)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 100, 120, 200, 400])
def test_trial_and_bits_per_dim_are_whole_at_any_width(width: int) -> None:
    table = fitted(COLUMNS, ROWS, width)
    assert table.width <= width
    assert {"trial", "bits/dim"} <= {column.title for column in table.columns}
    assert set(table.hidden) | {column.title for column in table.columns} == {column.title for column in COLUMNS}
    printed = _lines(width)
    for row in ROWS:
        assert sum(row[1] in line and row[11] in line for line in printed) == 1
    assert all(len(line) <= width for line in printed if not line.startswith("Not shown"))


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(80, [f"key_{place}" for place in range(2, 8)]), (120, ["key_6", "key_7"]), (200, [])],
)
def test_the_least_important_columns_are_left_out_and_named(width: int, left_out: list[str]) -> None:
    assert list(fitted(COLUMNS, ROWS, width).hidden) == left_out
    printed = _lines(width)
    line = f"Not shown in {width} columns: {', '.join(left_out)}; a wider terminal or a pipe shows them."
    assert (line in printed) == bool(left_out)


def test_the_greatest_priority_goes_first_and_the_rightmost_of_equal_ones() -> None:
    columns = [TableColumn(title=title, priority=priority) for title, priority in (("a", 1), ("b", 2), ("c", 2))]
    rows = [["1111", "2222", "3333"]]
    assert [fitted(columns, rows, width).hidden for width in (16, 15, 9, 3)] == [
        (),
        ("c",),
        ("b", "c"),
        ("a", "b", "c"),
    ]


def test_titles_and_text_fold_before_a_column_is_left_out() -> None:
    columns = (
        TableColumn(title="two words", priority=1),
        TableColumn(title="note", priority=1, align="left", least=10),
        TableColumn(title="bits/dim"),
    )
    rows = [["1", "a note of several words", "3.0000"]]
    table = fitted(columns, rows, 27)
    assert (table.hidden, table.widths) == ((), (5, 10, 8))
    assert fitted(columns, rows, 28).widths == (6, 10, 8)
    assert fitted(columns, rows, 1000).widths == fitted(columns, rows, None).widths == (9, 23, 8)


def test_what_is_always_shown_is_never_cut_even_if_it_does_not_fit() -> None:
    columns = [TableColumn(title="bits/dim", priority=ALWAYS)]
    table = fitted(columns, [["≤ 3.1234567890"]], 8)
    assert (table.widths, table.hidden) == ((14,), ())
    console = Console(file=io.StringIO(), width=8, force_terminal=True, color_system=None)
    print_table(console, columns, [["≤ 3.1234567890"]])
    assert isinstance(console.file, io.StringIO)
    assert "≤ 3.1234567890" in console.file.getvalue()


def test_a_pipe_gets_each_row_in_one_line_without_colours() -> None:
    printed = _lines(60, is_terminal=False)
    assert len(printed) == 1 + len(ROWS)
    assert all(NOTE in line for line in printed[1:])
    assert not any("\x1b" in line for line in printed)
    assert all(line == line.rstrip() for line in printed)


def test_markup_in_a_cell_is_text() -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    print_table(console, [TableColumn(title="a [b]")], [["[red]x[/red] [/]"]], title="[x]")
    assert isinstance(console.file, io.StringIO)
    assert [line.strip() for line in console.file.getvalue().splitlines()] == ["[x]", "a [b]", "[red]x[/red] [/]"]


def test_wide_characters_take_two_columns() -> None:
    assert fitted([TableColumn(title="模型")], [["数"]], None).widths == (4,)


@pytest.mark.parametrize("rows", [[], [[""]]])
def test_a_table_without_rows_or_cells_has_its_titles(rows: list[list[str]]) -> None:
    assert fitted([TableColumn(title="trial")], rows, 80).widths == (5,)
    assert fitted([], [], 80).width == 0


def test_where_a_table_stops() -> None:
    assert more_rows(0, "--all") == ""
    assert more_rows(1, "--all") == "… 1 more; --all shows it"
    assert more_rows(1234, "--all") == "… 1,234 more; --all shows them"
