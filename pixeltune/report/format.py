"""How a report writes numbers, units and names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from pixeltune.results.search_status import duration
from pixeltune.space.keys import short_name

NOTHING = "–"

TITLES = {
    "valid_bits_per_dim": "validation bits/dim",
    "valid_nats": "validation nats/image",
    "train_bits_per_dim": "training loss, bits/dim",
    "train_nats": "training loss, nats/image",
    "test_bits_per_dim": "test bits/dim",
    "test_nats": "test nats/image",
    "bits_per_dim": "bits/dim",
    "nats": "nats/image",
    "below_baseline_percent": "% below baseline",
    "num_parameters": "parameters",
    "network_calls": "network calls/image",
    "sample_images_per_second": "sampling speed, images/s",
    "peak_memory_bytes": "peak memory",
    "gpu_seconds": "GPU time",
    "train_seconds": "training time",
    "seconds": "time",
    "images_seen": "images seen",
}
"""Columns in words, with units where their values carry none."""

_FORMATS = {
    "valid_bits_per_dim": ".4f",
    "test_bits_per_dim": ".4f",
    "train_bits_per_dim": ".4f",
    "bits_per_dim": ".4f",
    "valid_nats": ",.2f",
    "test_nats": ",.2f",
    "train_nats": ",.2f",
    "nats": ",.2f",
    "below_baseline_percent": ".1f",
}
_BYTES = ("peak_memory_bytes",)
_SECONDS = ("gpu_seconds", "train_seconds", "seconds")
_LIKELIHOODS = ("bits_per_dim", "nats")


def title_of(name: str) -> str:
    """A column or configuration key in words: `lr` of optim.lr."""
    return TITLES.get(name) or short_name(name)


def is_likelihood(name: str) -> bool:
    """Whether a column holds one, which a bound is marked at."""
    return name.removeprefix("valid_").removeprefix("test_").removeprefix("train_") in _LIKELIHOODS


def cell(name: str, value: object, *, is_bound: bool = False) -> str:
    """A value of a column as text: 3 to 5 digits, thousands apart, bytes and seconds in units one can read."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if name in _BYTES:
        return size(value)
    if name in _SECONDS:
        return span(value)
    if name in _FORMATS:
        return ("≤ " if is_bound and is_likelihood(name) else "") + format(value, _FORMATS[name])
    return number(value)


def number(value: float) -> str:
    """Whole numbers with thousands apart, others with 3 digits; without an exponent where that is short."""
    if isinstance(value, int) or (value.is_integer() and 1000 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def size(count: float) -> str:
    """Bytes, such as 86.2 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def span(seconds: float) -> str:
    """Such as 3.4 s, 2:07 min, 3:02:11 h or 231 h."""
    if seconds >= 360_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{duration(seconds)} {'h' if seconds >= 3600 else 'min'}"


def moment(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return NOTHING if time is None else time.strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(count: int, what: str) -> str:
    """1 trial, 1,000 trials."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def listed(words: Iterable[str], most: int = 8) -> str:
    """The first of them, and how many more there are."""
    every = list(words)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def shortened(text: str, most: int = 160) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
