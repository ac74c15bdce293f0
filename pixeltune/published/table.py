"""Published likelihoods of image models, with the place where each was printed: `published.csv`, one row a number.

A user may add a file of the same form, `<storage>/published.csv`, with numbers that the shipped table lacks: see
`own_results`. Published sampling speeds are a second table: see `pixeltune.published.speeds`.

The table has facts only: values, titles and arXiv ids are as printed, and where two sources disagree, it has both.
Columns:

dataset, image_height, image_width: cifar10, mnist, imagenet32 and so on; pixels.
version: of the down-sampled ImageNet. One method differs by 0.26 bits/dim between `old` (van den Oord 2016) and `new`
    (Chrabaszcz 2017, anti-aliased); `unclear` where no source says which. version_inferred: `yes` where it was
    concluded from year and authors rather than stated.
levels: of each sub-pixel: 256, or 2 for binarised images. binarisation: `none`, `static` (the fixed draw by
    Larochelle), `dynamic` (training images are drawn again in every epoch), `unclear`.
split: the split that was measured. ImageNet's published split is `valid`; it is our test set.
metric, value: bits_per_dim or nats (per image); lower is better. upper_limit: `yes` where the source says only that the
    number is below `value`; such a row has no gap, no rank and is never comparable.
likelihood: `exact`; `lower_bound` (of the log-likelihood); `importance_weighted` (estimate from many samples);
    `dequantised` (a density on images with noise added); `ode` (a density through a probability-flow ODE).
    likelihood_detail: samples, ensembles, kind of dequantisation, how the test set was read.
conditional, augmentation: `yes` (on the class; beyond binarising again), `no`, blank where not stated.
params_million, params_source: parameters, and their source where it is not the place in `where`. compute: of the
    training, as stated; gpu_hours: GPUs × hours where both are stated, for GPUs of any kind.
year, title, arxiv, where: the source. evidence: `primary` (the paper or its authors' code), `secondary` (another
    paper's table). doubt: why a number should not be a yardstick, blank for most.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from pixeltune.errors import StoreError, did_you_mean
from pixeltune.published_sets import PUBLISHED_SETS

CHANNELS = {each.dataset or each.name: each.shape[0] for each in PUBLISHED_SETS.values()}
"""Colour channels of the data sets that have a source; the others have three."""


class Exactness(StrEnum):
    """The kind of number that a likelihood is."""

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
    upper_limit: bool = False
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
        """Return the colour channels of its data set."""
        return self.image_channels or CHANNELS.get(self.dataset, 3)

    @property
    def test_split(self) -> str:
        """Return the published split that serves as the test set."""
        return "valid" if self.dataset.startswith("imagenet") else "test"


_PIXELCNN = re.compile(r"Pixel(CNN|RNN|SNAIL|VAE)|LMConv|Diagonal BiLSTM")


def is_pixelcnn(model: str) -> bool:
    """Return whether a published model is of the PixelCNN family, by its name."""
    return _PIXELCNN.search(model) is not None


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return the table that is shipped with pixeltune."""
    text = resources.files("pixeltune.published").joinpath("published.csv").read_text(encoding="utf-8")
    return parse_published(text)


def parse_published(text: str) -> tuple[PublishedResult, ...]:
    """Read a table of the shipped form; a StoreError names the row and the column at fault."""
    names = [name for name in _NAMES if name not in _ONLY_OWN]
    columns, lines = read_table(text, _SHIPPED)
    if columns != names:
        raise StoreError(f"a table of published results must have the columns {', '.join(names)}; got {columns}")
    return tuple(PublishedResult(**parsed(line, f"line {number} of {_SHIPPED}", _READERS)) for number, line in lines)


def own_results(text: str) -> tuple[PublishedResult, ...]:
    """Read a user's table, which may leave out columns.

    Needed columns: dataset, model, metric, value, likelihood, year. Where they are left out or blank, the form of the
    images, levels and binarisation are those of the shipped rows of that data set and metric if these agree, the split
    is the test set, and evidence is `own`. Two columns exist only here: image_channels, and data_checksum, that of a
    row of ours: it states that these very images were used, no matter how the files are called.

    Raises:
        StoreError: The header lacks a column or has an unknown one, a field cannot be read, a value is negative or not
            finite, a data set is misspelt, or a row is there twice. The message names the line.
    """
    columns, lines = read_table(text, _OWN)
    lacking, unknown = [name for name in _NEEDED if name not in columns], sorted(set(columns) - set(_NAMES))
    if lacking or unknown:
        wrong = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(map(repr, unknown))}"
        hint = "; separate the columns by commas" if len(columns) == 1 and re.search("[;\t]", columns[0]) else ""
        raise StoreError(
            f"your published results must have the columns {', '.join(_NEEDED)} and may have those of the shipped "
            f"table (pt.load_published), but the file {wrong}{hint}"
        )
    results = [(number, _own(line, f"line {number} of {_OWN}")) for number, line in lines]
    _require_once(results)
    return tuple(result for _, result in results)


def read_table(text: str, name: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return the header of a CSV table, and its rows: the number of a row's last line, and its fields, stripped.

    Args:
        text: The whole file.
        name: The table, as error messages call it.

    Raises:
        StoreError: A column has no name or occurs twice. While rows are read: one has more or fewer fields than the
            header.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
    except csv.Error as error:
        raise StoreError(f"line 1 of {name} must be CSV, but it is not: {error}") from None
    if not columns and text.strip():
        raise StoreError(f"{name} must have the names of the columns in the first line, but it is blank")
    wrong = [column or "one without a name" for column in columns if not column or columns.count(column) > 1]
    if wrong:
        raise StoreError(f"{name} must name each column once in the first line, but got {wrong[0]} in it")
    reader.fieldnames = columns
    return columns, _rows(reader, name)


def _rows(reader: csv.DictReader[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    while True:
        try:
            line = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise StoreError(f"line {reader.line_num + 1} of {name} must be CSV, but it is not: {error}") from None
        yield reader.line_num, _stripped(line, f"line {reader.line_num} of {name}")


def parsed(line: Mapping[str, str], place: str, readers: Mapping[str, FieldReader]) -> dict[str, Any]:
    """Return the fields of a row, read by `readers`; other fields are text, and None where they are blank."""
    values: dict[str, Any] = {name: text or None for name, text in line.items()}
    for name in [name for name in readers if name in line]:
        try:
            values[name] = readers[name].read(line[name])
        except (KeyError, ValueError):
            raise StoreError(f"{place} must have {name}, {readers[name].expected}, but got {line[name]!r}") from None
    return values


@dataclass(frozen=True)
class FieldReader:
    """The reader of a column. read: raises ValueError or KeyError; expected: what must be there, as text."""

    read: Callable[[str], Any]
    expected: str

    def or_blank(self) -> FieldReader:
        """Return a reader that reads a blank field as None."""
        return FieldReader(lambda text: self.read(text) if text else None, f"{self.expected}, or nothing")


def number_from(least: float) -> FieldReader:
    """Return a reader of finite numbers of `least` or more."""
    return FieldReader(lambda text: _checked(text, float, least, math.inf), f"a number of {least:g} or more")


def whole_from(least: int, most: float = math.inf) -> FieldReader:
    """Return a reader of whole numbers from `least` to `most`."""
    expected = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
    return FieldReader(lambda text: _checked(text, int, least, most), f"a whole number {expected}")


def word_of(words: Mapping[str, Any]) -> FieldReader:
    """Return a reader of these words; "" is a blank field."""
    return FieldReader(words.__getitem__, " or ".join(word or "nothing" for word in words))


def _checked(text: str, kind: type[int] | type[float], least: float, most: float) -> float:
    """Return a finite number in these bounds; Python would read 2_9 as 29."""
    value = kind(text)
    if "_" in text or not (math.isfinite(value) and least <= value <= most):
        raise ValueError(text)
    return value


_SHIPPED, _OWN = "the published results", "your published results"
_NAMES = tuple(field.name for field in fields(PublishedResult))
_ONLY_OWN = ("image_channels", "data_checksum")
_NEEDED = ("dataset", "model", "metric", "value", "likelihood", "year")
_INFERRED = ("image_height", "image_width", "levels", "binarisation")
_KEY = ("dataset", "version", "binarisation", "split", "title", "arxiv", "model", "metric", "data_checksum")
"""What makes two rows the same number."""

_WORDS = {
    "metric": ("bits_per_dim", "nats"),
    "binarisation": ("none", "static", "dynamic", "threshold", "unclear"),
    "split": ("train", "valid", "test"),
}
_YES, _YES_NO = word_of({"yes": True, "": False}), word_of({"yes": True, "no": False, "": None})

_READERS: dict[str, FieldReader] = {
    **{name: word_of({word: word for word in words}) for name, words in _WORDS.items()},
    "version_inferred": _YES,
    "image_height": whole_from(1),
    "image_width": whole_from(1),
    "levels": whole_from(2),
    "value": replace(number_from(0), expected="a number of 0 or more (a likelihood of whole levels, not a density)"),
    "upper_limit": _YES,
    "likelihood": word_of({word.value: word for word in Exactness}),
    "conditional": _YES_NO,
    "augmentation": _YES_NO,
    "params_million": number_from(0).or_blank(),
    "gpu_hours": number_from(0).or_blank(),
    "year": whole_from(1900, 2100),
    "image_channels": whole_from(1).or_blank(),
}
"""How to read the columns that are not text."""


def _stripped(line: Mapping[Any, Any], place: str) -> dict[str, str]:
    if None in line or None in line.values():
        raise StoreError(f"{place} must have as many fields as the header; quote commas")
    return {name: text.strip() for name, text in line.items()}


def _own(line: Mapping[str, str], place: str) -> PublishedResult:
    given = {name: text for name, text in line.items() if text}
    lacking = [name for name in _NEEDED if name not in given]
    if lacking:
        raise StoreError(f"{place} must have {', '.join(lacking)}, but got a blank field")
    parsed(given, place, _READERS)  # a field that cannot be read comes before one that cannot be inferred
    _require_spelling(given["dataset"], place)
    whole = dict.fromkeys(_NAMES, "") | {"evidence": "own", "title": given["model"], "where": "your own table"}
    whole |= _shared_form(given["dataset"], given["metric"]) | given
    whole["split"] = whole["split"] or ("valid" if whole["dataset"].startswith("imagenet") else "test")
    unknown = [name for name in _INFERRED if not whole[name]]
    if unknown:
        raise StoreError(f"{place} must have {', '.join(unknown)}, {_why_not_inferred(given)}")
    return PublishedResult(**parsed(whole, place, _READERS))


def _shared_form(dataset: str, metric: str) -> dict[str, str]:
    """Return the form of the images, where all shipped rows of this data set and metric agree in it."""
    alike = [row for row in published_results() if (row.dataset, row.metric) == (dataset, metric)]
    forms = {name: {str(getattr(row, name)) for row in alike} for name in _INFERRED}
    return {name: form.pop() for name, form in forms.items() if len(form) == 1}


def _why_not_inferred(given: Mapping[str, str]) -> str:
    names = _shipped_sets()
    if given["dataset"] in names:
        return f"because the shipped rows of {given['dataset']} in {given['metric']} do not settle it"
    hint = did_you_mean(given["dataset"], names) or f"those of the shipped table are {', '.join(names)}"
    return f"because {given['dataset']!r} is not a data set of the shipped table; {hint}"


def _require_spelling(dataset: str, place: str) -> None:
    """Refuse `CIFAR-10` for cifar10: it would never meet a row of ours."""
    plain = {re.sub("[^a-z0-9]", "", name.lower()): name for name in _shipped_sets()}
    known = plain.get(re.sub("[^a-z0-9]", "", dataset.lower()), dataset)
    if known != dataset:
        raise StoreError(f"{place} must have dataset {known}, as the shipped table spells it, but got {dataset!r}")


def _require_once(results: Sequence[tuple[int, PublishedResult]]) -> None:
    lines: dict[tuple[Any, ...], int] = {}
    for number, result in results:
        earlier = lines.setdefault(tuple(getattr(result, name) for name in _KEY), number)
        if earlier != number:
            raise StoreError(
                f"line {number} of {_OWN} must be another number than line {earlier}, but got {result.model!r} on the "
                f"same split of {result.dataset} again; remove one, or name the models apart"
            )


def _shipped_sets() -> list[str]:
    return sorted({row.dataset for row in published_results()})
