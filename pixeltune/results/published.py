"""Published likelihoods of image models, with where each was printed: `published.csv`, a row a number.

Facts only: value, title and arXiv id stand as printed; where two sources disagree, both stand. Columns:

dataset, image_height, image_width: cifar10, mnist, imagenet32 and so on; pixels.
version: of the down-sampled ImageNet: `old` (van den Oord 2016) and `new` (Chrabaszcz 2017, anti-aliased) are 0.26
    bits/dim apart for one method; `unclear` where no source says which. version_inferred: `yes` where it was
    concluded from year and authors rather than stated.
levels: of each sub-pixel: 256, or 2 for binarised MNIST. binarisation: `none`, `static` (the fixed draw by
    Larochelle), `dynamic` (drawn anew in each epoch), `unclear`.
split: the split that was measured. ImageNet's published split is `valid`: for us it is the test set.
metric, value: bits_per_dim or nats (per image); lower is better.
likelihood: `exact`; `lower_bound` (of the log-likelihood); `importance_weighted` (estimate from many samples);
    `dequantised` (a density on images with noise added); `ode` (a density through a probability-flow ODE).
    likelihood_detail: samples, kind of dequantisation and the like.
conditional, augmentation: `yes` (on the class; beyond re-binarising), `no`, blank where not stated.
params_million, params_source: parameters, and who says so where it is not the place in `where`. compute: as stated.
year, title, arxiv, where: the source. evidence: `primary` (the paper or its authors' code), `secondary` (another
    paper's table). doubt: why a number should not be a yardstick, blank for most.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from pixeltune.errors import StoreError

CHANNELS = {"mnist": 1}
"""Colour channels of the data sets that do not have three."""


class Exactness(StrEnum):
    """What kind of number a likelihood is."""

    EXACT = "exact"
    LOWER_BOUND = "lower_bound"
    IMPORTANCE_WEIGHTED = "importance_weighted"
    DEQUANTISED = "dequantised"
    ODE = "ode"


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A row of `published.csv`; its columns are explained in the module's head. None where not stated."""

    dataset: str
    version: str | None
    version_inferred: bool
    image_height: int
    image_width: int
    levels: int
    binarisation: str
    split: str
    model: str
    metric: str
    value: float
    likelihood: Exactness
    likelihood_detail: str | None
    conditional: bool | None
    augmentation: bool | None
    params_million: float | None
    params_source: str | None
    compute: str | None
    year: int
    title: str
    arxiv: str | None
    where: str
    evidence: str
    doubt: str | None

    @property
    def channels(self) -> int:
        """Colour channels of its data set."""
        return CHANNELS.get(self.dataset, 3)

    @property
    def test_split(self) -> str:
        """The published split that plays the part of the test set."""
        return "valid" if self.dataset.startswith("imagenet") else "test"


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """The table that is shipped with pixeltune."""
    text = resources.files("pixeltune.results").joinpath("published.csv").read_text(encoding="utf-8")
    return parse_published(text)


def parse_published(text: str) -> tuple[PublishedResult, ...]:
    """Read a table of the shipped form; a StoreError names the row and the column at fault."""
    names = [field.name for field in fields(PublishedResult)]
    reader = csv.DictReader(text.splitlines())
    if reader.fieldnames is None or list(reader.fieldnames) != names:
        raise StoreError(
            f"a table of published results must have the columns {', '.join(names)}; got {reader.fieldnames}"
        )
    return tuple(_parsed(line, number) for number, line in enumerate(reader, start=2))


_YES_NO = {"yes": True, "no": False, "": None}
_READERS: dict[str, Callable[[str], Any]] = {
    "version_inferred": {"yes": True, "": False}.__getitem__,
    "image_height": int,
    "image_width": int,
    "levels": int,
    "value": float,
    "likelihood": Exactness,
    "conditional": _YES_NO.__getitem__,
    "augmentation": _YES_NO.__getitem__,
    "params_million": lambda text: float(text) if text else None,
    "year": int,
}
"""How to read the columns that are not text."""


def _parsed(line: dict[str, str], number: int) -> PublishedResult:
    values: dict[str, Any] = {name: text or None for name, text in line.items()}
    for name, reader in _READERS.items():
        try:
            values[name] = reader(line[name])
        except (KeyError, ValueError):
            raise StoreError(
                f"line {number} of the published results must have {name}, but got {line[name]!r}"
            ) from None
    return PublishedResult(**values)
