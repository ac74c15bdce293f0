"""Published likelihoods of image models, with where each was printed: `published.csv`, a row a number.

Beside one's own results a file of the same form may stand, `<storage>/published.csv`, with numbers that the shipped
table lacks: see `own_results`.

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
params_million, params_source: parameters, and who says so where it is not the place in `where`. compute: of the
    training, as stated; gpu_hours: GPUs × hours where both are stated, of whatever GPUs they were.
year, title, arxiv, where: the source. evidence: `primary` (the paper or its authors' code), `secondary` (another
    paper's table). doubt: why a number should not be a yardstick, blank for most.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from pixeltune.errors import StoreError
from pixeltune.published_sets import PUBLISHED_SETS

CHANNELS = {each.dataset or each.name: each.shape[0] for each in PUBLISHED_SETS.values()}
"""Colour channels of the data sets that have a source; the others have three."""


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
    gpu_hours: float | None
    year: int
    title: str
    arxiv: str | None
    where: str
    evidence: str
    doubt: str | None
    image_channels: int | None = None
    data_checksum: str | None = None

    @property
    def channels(self) -> int:
        """Colour channels of its data set."""
        return self.image_channels or CHANNELS.get(self.dataset, 3)

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
    names = [name for name in _NAMES if name not in _ONLY_OWN]
    reader = csv.DictReader(text.splitlines())
    if reader.fieldnames is None or list(reader.fieldnames) != names:
        raise StoreError(
            f"a table of published results must have the columns {', '.join(names)}; got {reader.fieldnames}"
        )
    return tuple(_parsed(line, number) for number, line in enumerate(reader, start=2))


def own_results(text: str) -> tuple[PublishedResult, ...]:
    """Read a user's table, which may leave out columns; a StoreError names what it lacks, or the line at fault.

    Needed: dataset, model, metric, value, likelihood, year. Left out or blank, the form of the images, levels and
    binarisation are those of the shipped rows of that data set and metric where these agree, the split is the test
    set, and evidence is `own`. Two columns are only here: image_channels, and data_checksum, that of a row of ours:
    it says that these very images were used, whatever the files are called.
    """
    reader = csv.DictReader(text.splitlines())
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    lacking, unknown = [name for name in _NEEDED if name not in columns], sorted(set(columns) - set(_NAMES))
    if lacking or unknown:
        wrong = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(unknown)}"
        raise StoreError(
            f"your published results must have the columns {', '.join(_NEEDED)} and may have those of the shipped "
            f"table (pt.load_published), but the file {wrong}"
        )
    return tuple(_own(line, number) for number, line in enumerate(reader, start=2))


_NAMES = tuple(field.name for field in fields(PublishedResult))
_ONLY_OWN = ("image_channels", "data_checksum")
_NEEDED = ("dataset", "model", "metric", "value", "likelihood", "year")
_INFERRED = ("image_height", "image_width", "levels", "binarisation")

_WORDS = {"metric": ("bits_per_dim", "nats"), "binarisation": ("none", "static", "dynamic", "threshold", "unclear")}
_YES_NO = {"yes": True, "no": False, "": None}


def _maybe(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: reader(text) if text else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    "version_inferred": {"yes": True, "": False}.__getitem__,
    "image_height": int,
    "image_width": int,
    "levels": int,
    "value": _finite,
    "likelihood": Exactness,
    "conditional": _YES_NO.__getitem__,
    "augmentation": _YES_NO.__getitem__,
    "params_million": _maybe(_finite),
    "gpu_hours": _maybe(_finite),
    "year": int,
    "image_channels": _maybe(int),
}
"""How to read the columns that are not text."""


def _parsed(line: Mapping[str, str], number: int) -> PublishedResult:
    values: dict[str, Any] = {name: text or None for name, text in line.items()}
    for name in [name for name in _READERS if name in line]:
        try:
            values[name] = _READERS[name](line[name])
        except (KeyError, ValueError):
            raise StoreError(
                f"line {number} of the published results must have {name}, but got {line[name]!r}"
            ) from None
    return PublishedResult(**values)


def _own(line: Mapping[str, Any], number: int) -> PublishedResult:
    if None in line or None in line.values():
        raise StoreError(
            f"line {number} of your published results must have as many fields as the header; quote commas"
        )
    given = {name: text.strip() for name, text in line.items()}
    for name, words in _WORDS.items():
        if given.get(name) and given[name] not in words:
            raise StoreError(
                f"line {number} of your published results must have {name} {' or '.join(words)}, "
                f"but got {given[name]!r}"
            )
    alike = [row for row in published_results() if (row.dataset, row.metric) == (given["dataset"], given["metric"])]
    whole = dict.fromkeys(_NAMES, "") | {"evidence": "own", "title": given["model"], "where": "your own table"}
    for name in _INFERRED:
        if len(known := {str(getattr(row, name)) for row in alike}) == 1:
            whole[name] = known.pop()
    whole |= {name: text for name, text in given.items() if text}
    lacking = [name for name in (*_NEEDED, *_INFERRED) if not whole[name]]
    if lacking:
        raise StoreError(f"line {number} of your published results must have {', '.join(lacking)}, which nothing tells")
    whole["split"] = whole["split"] or ("valid" if whole["dataset"].startswith("imagenet") else "test")
    return _parsed(whole, number)
