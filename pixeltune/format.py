"""Numbers with their units as text: bytes, durations, counts with their nouns, lists that are cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_BYTES = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0, "MiB": 2.0**20}

# --- Bytes ------------------------------------------------------------------------------------------------------------


def bytes_in(unit: str, count: float, digits: str = ".1f") -> str:
    """Return bytes in a fixed unit, such as `1.5 GB`.

    Args:
        unit: GB, MB, kB or B, or the binary MiB.
        count: The number of bytes.
        digits: The format of the number.
    """
    return f"{count / _BYTES[unit]:{digits}} {unit}"


def size(count: float) -> str:
    """Return bytes with three digits in the largest unit that fits, such as `86.2 MB`."""
    for unit in ("GB", "MB", "kB"):
        if count >= _BYTES[unit]:
            return bytes_in(unit, count, ".3g")
    return bytes_in("B", count, ".0f")


def size_text(count: float, *, gigabytes_from: float = 1e9) -> str:
    """Return bytes with one decimal, as download pages state them, such as `0.4 MB` or `1,229.8 GB`.

    Args:
        count: The number of bytes.
        gigabytes_from: The number of bytes from which the unit is GB rather than MB.
    """
    return bytes_in("GB" if count >= gigabytes_from else "MB", count, ",.1f")


# --- Durations --------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return a duration as a clock shows it: `0:07`, `12:30`, or `3:02:11` with hours."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def span(seconds: float) -> str:
    """Return a duration with its unit: `3.4 s`, `2:07 min`, `3:02:11 h` or `231 h`."""
    if seconds >= 360_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{duration(seconds)} {'h' if seconds >= 3600 else 'min'}"


def rough_duration(hours: float) -> str:
    """Return an estimate in one unit: `90 seconds`, `45 minutes` or `1,200 hours`."""
    if hours < 1 / 30:
        return f"{hours * 3600:.0f} seconds"
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"


def minutes(seconds: float) -> str:
    """Return seconds in whole minutes, such as `12 min`."""
    return f"{seconds / 60:.0f} min"


def hours(seconds: float) -> str:
    """Return seconds in hours with three digits and without a unit, such as `1.25`."""
    return f"{seconds / 3600:.3g}"


# --- Counts and lists -------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return a number with three digits, a whole one with thousands apart; without an exponent where that is short."""
    if isinstance(value, int) or (value.is_integer() and 1000 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def dollars(amount: float) -> str:
    """Return an amount of money, such as `$1,234.50`; smaller ones than a cent keep two digits that are not 0."""
    return f"${amount:,.2f}" if amount == 0 or amount >= 0.01 else f"${amount:.2g}"


def plural(count: int, noun: str) -> str:
    """Return the noun for so many: `trial` for 1, else `trials`."""
    return noun if count == 1 else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 trial`, `1,000 trials`."""
    return f"{count:,} {plural(count, noun)}"


def sparkline(values: Iterable[float | None], width: int = 12) -> str:
    """Return the last finite numbers as blocks, the lowest as the lowest block: `█▅▃▂▁`."""
    known = [value for value in values if value is not None and math.isfinite(value)][-width:]
    low, high = min(known, default=0.0), max(known, default=0.0)
    steps = [round((value - low) / (high - low) * (len(_BLOCKS) - 1)) if high > low else 0 for value in known]
    return "".join(_BLOCKS[step] for step in steps)


def is_or_are(count: int) -> str:
    """Return the verb for so many."""
    return "is" if count == 1 else "are"


def listed(words: Iterable[str], most: int = 8) -> str:
    """Return the first words, and how many more there are: `a, b and 3 more`."""
    every = list(words)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def enumerated(words: Sequence[str]) -> str:
    """Return all words: `a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shortened(text: str, most: int = 160) -> str:
    """Return a text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
