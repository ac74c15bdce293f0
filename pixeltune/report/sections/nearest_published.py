"""The best of a search, or the choice of a final, compared with published numbers, and whether each may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixeltune.format import counted
from pixeltune.published.nearest import Comparison, comparison
from pixeltune.published.table import Exactness
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.final_statistics import first_choice, mean_row
from pixeltune.results.parquet_io import Row
from pixeltune.results.repeats import seeds_text

_MOST = 15


@dataclass(frozen=True)
class PublishedLine:
    """A published number. ours, published, gap: as shown, and their values. words: mismatches and caveats."""

    model: str
    year: int
    published: str
    published_value: float
    ours: str
    ours_value: float | None
    gap: str
    comparable: bool
    words: str
    arxiv: str | None
    where: str


@dataclass(frozen=True)
class NearestPublished:
    """The comparison. sentences: what is compared, and what that is worth. lines: may be empty."""

    sentences: Sequence[str]
    caption: str
    lines: Sequence[PublishedLine]


def nearest_published(snapshot: Snapshot, final_board: Sequence[Row] = ()) -> NearestPublished:
    """Return the comparison; final_board: the leaderboard of a final."""
    row, name = _ours(snapshot, final_board)
    if row is None:
        return NearestPublished(["There is no result yet to compare with them."], "", [])
    compared = comparison(row, _MOST)
    if not compared:
        return NearestPublished(
            [f"No published results are known for {row['data.name']}; the order-0 baseline is the yardstick."], "", []
        )
    test = row["evaluated_split"] == "test"
    sentences = [f"Ours: {name}."]
    if not test:
        sentences.append(
            "A validation number, of the trial that validation chose: it cannot be compared with published test "
            "numbers, no matter how large the difference is. Only a final run reads the test set (see below how to run "
            "one)."
        )
    comparable = sum(each.comparable for each in compared)
    unit = " and ".join(dict.fromkeys(cell_title(each.published.metric) for each in compared))
    caption = (
        f"The {counted(len(compared), 'published number')} nearest in kind, in {unit}, lower is better; "
        f"{comparable} of them comparable. ≤ marks upper bounds."
    )
    return NearestPublished(sentences, caption, [_line(each, bool(row["is_bound"])) for each in compared])


def cell_title(metric: str) -> str:
    """Return the unit of a published number."""
    return {"bits_per_dim": "bits/dim", "nats": "nats/image"}[metric]


def _ours(snapshot: Snapshot, final_board: Sequence[Row]) -> tuple[Row | None, str]:
    final = snapshot.manifest.final
    if final is None:
        row = next(iter(snapshot.best(1)), None)
        if row is None:
            return None, ""
        what = ", ".join(filter(None, [row["status"], seeds_text(row)]))
        return row, f"trial {row['trial']} ({what}), the best by {title_of(snapshot.objective)}"
    if not final_board:
        return None, ""
    first = first_choice(final_board, final)
    seeds = counted(first["seeds"], "seed")
    name = f"{final.search}/{first['from_trial']}, which validation put first: the mean of {seeds} on the test set"
    return mean_row(first, snapshot.rows), name


def _line(compared: Comparison, is_bound: bool) -> PublishedLine:
    why, caveats, published = compared.why_not, compared.caveats, compared.published
    words = [*why, *([f"caveat: {'; '.join(caveats)}"] if caveats else [])]
    theirs = "≤ " if published.likelihood == Exactness.LOWER_BOUND else ""
    return PublishedLine(
        model=published.model,
        year=published.year,
        published=f"{theirs}{published.value:g}",
        published_value=published.value,
        ours=cell(published.metric, compared.ours, is_bound=is_bound),
        ours_value=compared.ours,
        gap="another task" if compared.gap is None else f"{compared.gap:+.3f}",
        comparable=compared.comparable,
        words="; ".join(words) or "nothing that is known",
        arxiv=published.arxiv,
        where=published.where or "",
    )
