"""The lines of a paper's table: our configurations, the published results of the same images, and the notes of each.

Values are kept in full; `render` prints them. A published row is judged next to each of our rows, because a table may
hold rows of several finals: one of them conditional, or a bound, and another not.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixeltune.errors import StoreError
from pixeltune.paper.works import work_of
from pixeltune.published.comparability import NumberSpec, identity_of, is_near, published_for
from pixeltune.published.nearest import Comparison
from pixeltune.published.table import Exactness, PublishedResult
from pixeltune.published_sets import PUBLISHED_SETS
from pixeltune.results.final_statistics import leaderboard_of, mean_row
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import counted_statuses
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore

FAMILY_NAMES = {"pixelcnn": "PixelCNN", "gated": "Gated PixelCNN", "pixelcnnpp": "PixelCNN++", "pixelvae": "PixelVAE"}
"""How papers write our families."""

_UNFINISHED = (Status.RUNNING, Status.INTERRUPTED)
_FEWEST_DIGITS, _USUAL_DIGITS, _MOST_DIGITS = 3, 4, 6


@dataclass(frozen=True, kw_only=True)
class FinishedFinal:
    """The runs of a final and their means.

    Attributes:
        search: The name of the final.
        rows: The rows of all its runs.
        places: As `pixeltune.results.final_statistics.final_leaderboard` returns them.
    """

    search: str
    rows: Sequence[Row]
    places: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A line of the tables: a column of `tables.parquet` for each field.

    Attributes:
        kind: `ours` or `published`.
        model: The model's name; of ours with the search and the trial that found the configuration.
        search, from_search, from_trial, runs: Of ours: the final, the search and trial behind it, the runs in the mean.
        seeds: How many runs the mean is of.
        bits_per_dim, nats: On the test set. Published rows have the one that was published.
        bits_per_dim_error, nats_error: Standard errors of ours over seeds; None with one seed.
        bits_per_dim_images_error, nats_images_error: Standard errors of ours over test images.
        is_bound: Whether the true number may be lower: it is printed with ≤.
        likelihood: What kind of number it is, a word of `Exactness`.
        num_parameters, params_million: Trainable parameters; those of ours are exact.
        comparable: Of a published row: whether it is comparable with every row of ours. None for ours.
        notes: Why it is not comparable, and caveats; each is a footnote.
        citation_key, arxiv, year, where: The source of a published row.
        is_shown: Whether the LaTeX and Markdown tables have the line.
    """

    kind: str
    model: str
    search: str | None = None
    from_search: str | None = None
    from_trial: str | None = None
    runs: tuple[str, ...] = ()
    seeds: int | None = None
    bits_per_dim: float | None = None
    bits_per_dim_error: float | None = None
    bits_per_dim_images_error: float | None = None
    nats: float | None = None
    nats_error: float | None = None
    nats_images_error: float | None = None
    is_bound: bool = False
    likelihood: str = str(Exactness.EXACT)
    num_parameters: int | None = None
    params_million: float | None = None
    comparable: bool | None = None
    notes: tuple[str, ...] = ()
    citation_key: str | None = None
    arxiv: str | None = None
    year: int | None = None
    where: str | None = None
    is_shown: bool = True


@dataclass(frozen=True)
class Digits:
    """Decimals with which our numbers are printed."""

    bits_per_dim: int
    nats: int


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """The lines in their order, how they are printed, and what they are about, as text for a caption."""

    rows: Sequence[TableRow]
    digits: Digits
    title: str
    published: Sequence[PublishedResult] = field(default=())

    @property
    def shown(self) -> list[TableRow]:
        """Return the lines of the LaTeX and Markdown tables."""
        return [row for row in self.rows if row.is_shown]


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "model", "search", "from_search", "from_trial")),
        ("runs", pa.list_(pa.string())),
        ("seeds", pa.int64()),
        *((name, pa.float64()) for name in ("bits_per_dim", "bits_per_dim_error", "bits_per_dim_images_error")),
        *((name, pa.float64()) for name in ("nats", "nats_error", "nats_images_error")),
        ("is_bound", pa.bool_()),
        ("likelihood", pa.string()),
        ("num_parameters", pa.int64()),
        ("params_million", pa.float64()),
        ("comparable", pa.bool_()),
        ("notes", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("citation_key", "arxiv")),
        ("year", pa.int64()),
        ("where", pa.string()),
        ("is_shown", pa.bool_()),
    ]
)


def finished_final(store: SearchStore) -> FinishedFinal:
    """Read a final whose runs have all ended.

    Raises:
        StoreError: It is a search, a run is not finished, none succeeded, or the nats of a run are missing.
    """
    rows = require_finished(store)
    return FinishedFinal(search=store.search, rows=rows, places=leaderboard_of(store))


def require_finished(store: SearchStore) -> list[Row]:
    """Return the rows of a final's runs; StoreError where it is no final, or where a run has not ended."""
    manifest = store.manifest()
    if manifest.final is None:
        raise StoreError(
            f"a paper needs the test numbers of a final, but {store.search} is a search; "
            f"run `pixeltune final {store.search}` first"
        )
    rows = store.trials()
    planned = max(_planned(store), len(rows))
    ended = sum(row["status"] not in _UNFINISHED for row in rows)
    if not planned or ended < planned:
        raise StoreError(
            f"a paper needs a final whose runs have all ended, but {store.search} has {ended} of {planned or 'its'} "
            f"runs; run `pixeltune final {manifest.final.search}` again to finish it"
        )
    if not any(row["status"] == Status.FINISHED for row in rows):
        raise StoreError(f"a paper needs a finished run, but {store.search} has none ({counted_statuses(rows)})")
    return rows


def mean_columns(place: Row) -> dict[str, Any]:
    """Return a configuration's seeds, mean and standard error over seeds, by column of the tables."""
    return {
        "seeds": place["seeds"],
        "bits_per_dim": place["bits_per_dim"],
        "bits_per_dim_error": place["bits_per_dim_seeds_error"],
        "nats": place["nats"],
        "nats_error": place["nats_seeds_error"],
    }


def make_table(
    finals: Sequence[FinishedFinal],
    *,
    own: Sequence[PublishedResult] = (),
    most: int | None = None,
    digits: int | None = None,
) -> PaperTable:
    """Return our rows and the published ones of the same data set, comparable ones first, each group by its number.

    Args:
        finals: The first decides which images the table is about.
        own: Published results that the user adds.
        most: How many published rows are shown, the nearest in kind first; None for all of the data set.
        digits: Decimals of our bits/dim; None for two digits of the smallest standard error.

    Raises:
        StoreError: The finals measure different images.
    """
    _require_same_task(finals)
    ours = [pair for final in finals for pair in _our_rows(final, finals)]
    identities: dict[NumberSpec, list[str]] = {}
    for name, row in ours:
        identities.setdefault(identity_of(row, own), []).append(name)
    rows = [_our_row(name, row, final, finals[0]) for final in finals for name, row in _our_rows(final, finals)]
    results = list({id(each): each for identity in identities for each in published_for(identity, own)}.values())
    shown = _nearest(results, list(identities), most)
    published = sorted(
        (replace(_published_row(each, identities), is_shown=each in shown) for each in results),
        key=lambda row: (not row.comparable, row.bits_per_dim is None, row.bits_per_dim or row.nats or 0.0, row.model),
    )
    first = ours[0][1]
    dims = first["image_channels"] * first["image_height"] * first["image_width"]
    return PaperTable(
        rows=[*rows, *published],
        digits=_digits(rows, digits, dims),
        title=_title(first),
        published=[each for each in results if each in shown],
    )


def to_parquet(table: PaperTable) -> bytes:
    """Return all lines as Parquet, values in full."""
    columns = {name: [_plain(getattr(row, name)) for row in table.rows] for name in _SCHEMA.names}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(columns, schema=_SCHEMA), sink)
    return sink.getvalue()


def to_json(table: PaperTable) -> bytes:
    """Return all lines as JSON; Python reads each number back as it was."""
    tree = {"title": table.title, "digits": asdict(table.digits), "rows": [asdict(row) for row in table.rows]}
    return (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _planned(store: SearchStore) -> int:
    """Return how many runs the newest launch was asked for; 0 where it is not known."""
    budget = store.launch().get("budget")
    trials = budget.get("trials") if isinstance(budget, Mapping) else None
    return trials if isinstance(trials, int) else 0


def _our_rows(final: FinishedFinal, finals: Sequence[FinishedFinal]) -> list[tuple[str, Row]]:
    """Return the name and the mean row of each configuration of a final."""
    return [(_our_name(place, final, finals), mean_row(place, final.rows)) for place in final.places]


def _our_name(place: Row, final: FinishedFinal, finals: Sequence[FinishedFinal]) -> str:
    origin = f"{place['from_search']}/{place['from_trial']}"
    same = [each for each in finals for other in each.places if _origin(other) == _origin(place)]
    row = mean_row(place, final.rows)
    family = FAMILY_NAMES.get(str(row["model.family"]), str(row["model.family"]))
    return f"{family} (ours, {origin}{f' in {final.search}' if len(same) > 1 else ''})"


def _origin(place: Row) -> tuple[str, str]:
    return place["from_search"], place["from_trial"]


def _our_row(name: str, row: Row, final: FinishedFinal, first: FinishedFinal) -> TableRow:
    place = next(place for place in final.places if row["trial"] in place["runs"])
    return TableRow(
        kind="ours",
        model=name,
        search=final.search,
        from_search=place["from_search"],
        from_trial=place["from_trial"],
        runs=tuple(place["runs"]),
        **mean_columns(place),
        bits_per_dim_images_error=place["bits_per_dim_images_error"],
        nats_images_error=place["nats_images_error"],
        is_bound=place["is_bound"],
        likelihood=str(Exactness.LOWER_BOUND if place["is_bound"] else Exactness.EXACT),
        num_parameters=row["num_parameters"],
        params_million=None if row["num_parameters"] is None else row["num_parameters"] / 1e6,
        notes=tuple(_our_notes(place, row, final, first)),
    )


def _our_notes(place: Row, row: Row, final: FinishedFinal, first: FinishedFinal) -> Iterator[str]:
    """Yield what a reader must know of one of our rows in every comparison."""
    identity, leading = identity_of(row), mean_row(first.places[0], first.rows)
    if place["seeds"] == 1:
        yield "one seed: the noise of training is not known"
    runs = [each for each in final.rows if each["from_trial"] == place["from_trial"]]
    lost = [each for each in runs if each["status"] != Status.FINISHED]
    if lost:
        yield f"{len(lost)} of {len(runs)} runs are not in the mean: {counted_statuses(lost)}"
    if row["data_checksum"] != leading["data_checksum"]:
        yield (
            f"checksum of training and test images {row['data_checksum']}, not {leading['data_checksum']} as in "
            f"{first.search}"
        )
    if identity.conditional:
        yield "given the class of each image"
    if identity.augmented:
        yield "trained on mirrored images too"
    if identity.fraction < 1.0:
        yield f"trained on {identity.fraction:.3g} of the training images, and on validation"


def _published_row(result: PublishedResult, identities: Mapping[NumberSpec, Sequence[str]]) -> TableRow:
    comparable, notes = _judged(result, identities)
    return TableRow(
        kind="published",
        model=result.model,
        is_bound=result.upper_limit or result.likelihood is Exactness.LOWER_BOUND,
        likelihood=str(result.likelihood),
        params_million=result.params_million,
        comparable=comparable,
        notes=tuple(notes),
        citation_key=work_of(result).key,
        arxiv=result.arxiv,
        year=result.year,
        where=result.where,
        **{result.metric: result.value},  # type: ignore[arg-type]
    )


def _judged(result: PublishedResult, identities: Mapping[NumberSpec, Sequence[str]]) -> tuple[bool, list[str]]:
    """Return whether a published result compares with all of our rows, and its notes; those of some name them."""
    found: dict[str, list[str]] = {}
    comparable = True
    for identity, names in identities.items():
        verdict = Comparison.of(identity, result)
        comparable = comparable and verdict.comparable
        for note in (*(f"not comparable: {why}" for why in verdict.why_not), *verdict.caveats):
            found.setdefault(note, []).extend(names)
    everyone = sum(map(len, identities.values()))
    return comparable, [
        note if len(names) == everyone else f"{note} (next to {', '.join(names)})" for note, names in found.items()
    ]


def _nearest(results: Sequence[PublishedResult], identities: Sequence[NumberSpec], most: int | None) -> list[object]:
    """Return the results that are shown: of the same task and binarisation, the fewest mismatches, then the lowest."""
    if most is None:
        return list(results)
    near = [each for each in results if any(is_near(identity, each) for identity in identities)] or list(results)

    def distance(each: PublishedResult) -> tuple[int, float]:
        return min(Comparison.of(identity, each).distance for identity in identities)

    return list(sorted(near, key=distance)[:most])


def _require_same_task(finals: Sequence[FinishedFinal]) -> None:
    tasks = {final.search: _task(mean_row(final.places[0], final.rows)) for final in finals}
    first = next(iter(tasks))
    for name, task in tasks.items():
        if task != tasks[first]:
            raise StoreError(
                f"--with must be a final of the same test images as {first} ({tasks[first]}), but {name} has {task}; "
                "leave it out"
            )


def _task(row: Row) -> str:
    """Return what a number is about, as text: data set, form, levels, binarisation."""
    identity = identity_of(row)
    name = str(row["data.name"])
    images = identity.dataset or (name if name in PUBLISHED_SETS else f"{name} of checksum {row['data_checksum']}")
    binarised = "" if identity.binarisation == "none" else f", binarised ({identity.binarisation})"
    return f"{images}, {identity.channels}×{identity.height}×{identity.width}, {identity.levels} levels{binarised}"


def _title(row: Row) -> str:
    version = "" if row["data_version"] in (None, "original") else f" (version: {row['data_version']})"
    return f"{_task(row)}{version}"


def _digits(ours: Sequence[TableRow], asked: int | None, dims: int) -> Digits:
    """Return decimals: two digits of the smallest error, so that no error is printed as zero; nats are no coarser."""
    errors = [row.bits_per_dim_error for row in ours if row.bits_per_dim_error]
    bits = asked
    if bits is None:
        wanted = 1 - math.floor(math.log10(min(errors))) if errors else _USUAL_DIGITS
        bits = max(_FEWEST_DIGITS, min(_MOST_DIGITS, wanted))
    return Digits(bits, max(0, math.ceil(bits - math.log10(dims * math.log(2)))))
