"""Numbers, units and names as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from datetime import datetime

from pixeltune.format import number, size, span
from pixeltune.results.schema import Status
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
"""Titles of columns, with units where their values carry none."""

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
    """Return the title of a column or configuration key: `lr` of optim.lr."""
    return TITLES.get(name) or short_name(name)


def is_likelihood(name: str) -> bool:
    """Return whether a column holds a likelihood, which gets a mark where it is a bound."""
    return name.removeprefix("valid_").removeprefix("test_").removeprefix("train_") in _LIKELIHOODS


def cell(name: str, value: object, *, is_bound: bool = False) -> str:
    """Return a column's value as text: 3 to 5 digits, thousands separated, bytes and seconds in readable units."""
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


def moment(time: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return NOTHING if time is None else time.strftime("%Y-%m-%d %H:%M:%S UTC")


def notes_on_partial(statuses: Container[str]) -> Iterator[str]:
    """Yield what the numbers of trials are that did not train to their end, for each such status that occurs."""
    for status, end in ((Status.PRUNED, "stopped early"), (Status.STOPPED, "ended by hand")):
        if status in statuses:
            yield (
                f"{status.capitalize()} trials were {end}: their numbers are those at the images that they had seen by "
                "then."
            )
