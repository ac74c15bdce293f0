"""The table as LaTeX and as Markdown, and the check that each printed number is the one of the Parquet file.

Our numbers are printed with the decimals of `PaperTable.digits`, published ones with all of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from string import ascii_lowercase

from pixeltune.errors import StoreError
from pixeltune.paper.rows import Digits, PaperTable, TableRow
from pixeltune.paper.works import escape_tex

_NOTHING = "--"
_NUMBERS = (("seeds",), ("bits_per_dim", "bits_per_dim_error"), ("nats", "nats_error"), ("params_million",))
"""The columns of the Parquet file that each numeric column of the LaTeX table prints."""

_TITLES = ("Model", "Seeds", "Bits/dim", "Nats/image", "Params (M)", "Source")
_MODEL_WIDTH = 0.27
"""The column of names, as a share of the text's width: with the numbers, the table fits an article of one column."""

_LEGEND = (
    "Lower is better. Ours: the mean over seeds ± one standard error over seeds, on the whole test set, which each run "
    "reads once. ≤ marks upper bounds. Published numbers are as published, without trailing zeros."
)
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def printed(row: TableRow, digits: Digits) -> dict[str, str]:
    """Return the digits of each number of a line that has one, by column of the Parquet file."""
    is_ours = row.kind == "ours"
    texts = {
        "seeds": None if row.seeds is None else str(row.seeds),
        "params_million": None if row.params_million is None else _millions(row.params_million, is_ours=is_ours),
    }
    for unit, decimals in (("bits_per_dim", digits.bits_per_dim), ("nats", digits.nats)):
        value, error = getattr(row, unit), getattr(row, f"{unit}_error")
        texts[unit] = None if value is None else f"{value:.{decimals}f}" if is_ours else _as_given(value)
        texts[f"{unit}_error"] = None if error is None else f"{error:.{decimals}f}"
    return {name: text for name, text in texts.items() if text is not None}


def printed_mean(row: TableRow, digits: Digits) -> dict[str, str]:
    """Return the digits of the mean and its error alone, by column of the Parquet file."""
    return {name: text for name, text in printed(row, digits).items() if name not in ("seeds", "params_million")}


def to_latex(table: PaperTable, label: str) -> str:
    """Return a table for an article with booktabs. label: what comes after `tab:` in its label."""
    marks = _marks(table.shown)
    ours, others = ([row for row in table.shown if (row.kind == "ours") is is_ours] for is_ours in (True, False))
    notes = [rf"\textsuperscript{{{mark}}}~{escape_tex(note)}." for note, mark in marks.items()]
    lines = [
        r"% Needs \usepackage{booktabs}. The same numbers in full are in tables.parquet and tables.json.",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{Test results on {escape_tex(table.title)}. {escape_tex(_LEGEND)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:.-]+', '-', label)}}}",
        rf"\begin{{tabular}}{{@{{}}p{{{_MODEL_WIDTH}\linewidth}}rlllr@{{}}}}",
        r"\toprule",
        " & ".join(map(escape_tex, _TITLES)) + r" \\",
        r"\midrule",
        *(_latex_line(row, table.digits, marks) for row in ours),
        *([r"\midrule"] if others else []),
        *(_latex_line(row, table.digits, marks) for row in others),
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"] if notes else []),
        *(f"{note}\\\\" for note in notes[:-1]),
        *notes[-1:],
        *([r"\end{minipage}"] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_markdown(table: PaperTable) -> str:
    """Return the same table as Markdown, with the same marks."""
    marks = _marks(table.shown)
    lines = [
        f"**Test results on {_escape_markdown(table.title)}.** {_LEGEND}",
        "",
        f"| {' | '.join(_TITLES)} |",
        "|---|--:|---|---|---|---|",
        *(_markdown_line(row, table.digits, marks) for row in table.shown),
        "",
        *(f"<sup>{mark}</sup> {_escape_markdown(note)}.  " for note, mark in marks.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def numbers_of_latex(tex: str) -> list[dict[str, str]]:
    """Return the digits of each number of each line of a LaTeX table of ours, by column of the Parquet file.

    Raises:
        StoreError: A line has other cells than `to_latex` writes.
    """
    body = tex.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    lines = [line for line in body.split("\n") if line.endswith(r" \\")]
    return [_numbers_of_line(line) for line in lines]


def require_faithful(tex: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Refuse a LaTeX table in which a number is not that of the Parquet file, rounded to the digits printed.

    Args:
        tex: What `to_latex` returned.
        rows: The lines of the Parquet file that are shown, in their order.
    """
    lines = numbers_of_latex(tex)
    if len(lines) != len(rows):
        raise StoreError(f"the LaTeX table must have {len(rows)} lines as the Parquet file, but it has {len(lines)}")
    for texts, row in zip(lines, rows, strict=True):
        numbers = {name: row[name] for names in _NUMBERS for name in names}
        values = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        if texts.keys() != values.keys():
            raise StoreError(f"the LaTeX line of {row['model']} must print {', '.join(values)}, but prints {texts}")
        for name, text in texts.items():
            if Decimal(values[name]).quantize(Decimal(text), ROUND_HALF_EVEN) != Decimal(text):
                raise StoreError(f"{name} of {row['model']} must be {values[name]} rounded, but LaTeX prints {text}")


def _numbers_of_line(line: str) -> dict[str, str]:
    cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
    if len(cells) != len(_TITLES):
        raise StoreError(f"a line of the LaTeX table must have {len(_TITLES)} cells, but got {line!r}")
    found: dict[str, str] = {}
    for names, cell in zip(_NUMBERS, cells[1:-1], strict=True):
        texts = re.findall(r"-?\d+(?:\.\d+)?", cell)
        if len(texts) > len(names):
            raise StoreError(f"a cell of the LaTeX table must have {len(names)} numbers at most, but got {cell!r}")
        found |= dict(zip(names, texts, strict=False))
    return found


def _latex_line(row: TableRow, digits: Digits, marks: Mapping[str, str]) -> str:
    texts = printed(row, digits)
    own = _marks_of(row, marks)
    model = escape_tex(row.model) + (rf"\textsuperscript{{{own}}}" if own else "")
    source = "this work" if row.citation_key is None else rf"\cite{{{row.citation_key}}}"
    numbers = [_number(texts, names, at_most=r"\leq " if row.is_bound else "", plus_minus=r"\pm") for names in _NUMBERS]
    cells = [_NOTHING if number is None else f"${number}$" for number in numbers]
    return " & ".join([model, *cells, source]) + r" \\"


def _markdown_line(row: TableRow, digits: Digits, marks: Mapping[str, str]) -> str:
    own = _marks_of(row, marks)
    model = _escape_markdown(row.model) + (f"<sup>{own}</sup>" if own else "")
    source = "this work" if row.citation_key is None else f"[{row.citation_key}]"
    texts = printed(row, digits)
    cells = [_number(texts, names, at_most="≤ " if row.is_bound else "", plus_minus="±") or "–" for names in _NUMBERS]
    return f"| {' | '.join([model, *cells, source])} |"


def _number(texts: Mapping[str, str], names: Sequence[str], *, at_most: str, plus_minus: str) -> str | None:
    """Return a number, a likelihood with its error and behind `at_most`; None where the line has none."""
    value, *error = (texts.get(name) for name in names)
    if value is None or not error:
        return value
    return f"{at_most}{value}" + (f" {plus_minus} {error[0]}" if error[0] else "")


def _marks(rows: Sequence[TableRow]) -> dict[str, str]:
    """Return a mark for each note, in the order in which they come: a, b, …, z, aa."""
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    return {note: _letters(number) for number, note in enumerate(notes)}


def _marks_of(row: TableRow, marks: Mapping[str, str]) -> str:
    return ",".join(sorted((marks[note] for note in row.notes), key=lambda mark: (len(mark), mark)))


def _letters(number: int) -> str:
    rest, last = divmod(number, len(ascii_lowercase))
    return (_letters(rest - 1) if rest else "") + ascii_lowercase[last]


def _escape_markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _millions(value: float, *, is_ours: bool) -> str:
    return _significant(value) if is_ours else _as_given(value).removesuffix(".0")


def _significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent."""
    exponent = Decimal(f"{value:.{digits - 1}e}").adjusted() if value else 0
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def _as_given(value: float) -> str:
    """Return the shortest digits that read back as this number, without an exponent."""
    return format(Decimal(repr(value)), "f")
