"""The best of a search, or the choice of a final, beside published numbers, and whether each may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixeltune.format import counted
from pixeltune.published.nearest import Comparison, comparison
from pixeltune.published.table import Exactness
from pixeltune.report.format import cell, title_of
from pixeltune.report.snapshot import Snapshot
from pixeltune.results.final_statistics import first_choice, mean_row
from pixeltune.results.parquet_io import Row

_MOST = 15


@dataclass(frozen=True)
class BesideLine:
    """A published number. ours, published, gap: as shown; the values as they are. words: why not, and caveats."""

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
class Beside:
    """sentences: what stands beside what, and what that is worth. lines: may be empty."""

    sentences: Sequence[str]
    caption: str
    lines: Sequence[BesideLine]


def beside_published(snapshot: Snapshot, places: Sequence[Row] = ()) -> Beside:
    """places: the leaderboard of a final."""
    row, name = _ours(snapshot, places)
    if row is None:
        return Beside(["There is no result yet to stand beside them."], "", [])
    besides = comparison(row, _MOST)
    if not besides:
        return Beside(
            [f"No published results are known for {row['data.name']}; the order-0 baseline is the yardstick."], "", []
        )
    test = row["evaluated_split"] == "test"
    sentences = [f"Ours: {name}."]
    if not test:
        sentences.append(
            "A validation number, of the trial that validation chose: it cannot be compared with published test "
            "numbers, whatever the difference is. Only a final run reads the test set (see below how to run one)."
        )
    comparable = sum(beside.comparable for beside in besides)
    unit = " and ".join(dict.fromkeys(cell_title(beside.published.metric) for beside in besides))
    caption = (
        f"The {counted(len(besides), 'published number')} nearest in kind, in {unit}, lower is better; "
        f"{comparable} of them comparable. ≤ marks upper bounds."
    )
    return Beside(sentences, caption, [_line(beside, bool(row["is_bound"])) for beside in besides])


def cell_title(metric: str) -> str:
    """The unit of a published number."""
    return {"bits_per_dim": "bits/dim", "nats": "nats/image"}[metric]


def _ours(snapshot: Snapshot, places: Sequence[Row]) -> tuple[Row | None, str]:
    final = snapshot.manifest.final
    if final is None:
        row = next(iter(snapshot.best(1)), None)
        return row, f"trial {row['trial']} ({row['status']}), the best by {title_of(snapshot.objective)}" if row else ""
    if not places:
        return None, ""
    first = first_choice(places, final)
    seeds = counted(first["seeds"], "seed")
    name = f"{final.search}/{first['from_trial']}, which validation put first: the mean of {seeds} on the test set"
    return mean_row(first, snapshot.rows), name


def _line(beside: Comparison, is_bound: bool) -> BesideLine:
    why, caveats, published = beside.why_not, beside.caveats, beside.published
    words = [*why, *([f"caveat: {'; '.join(caveats)}"] if caveats else [])]
    theirs = "≤ " if published.likelihood == Exactness.LOWER_BOUND else ""
    return BesideLine(
        model=published.model,
        year=published.year,
        published=f"{theirs}{published.value:g}",
        published_value=published.value,
        ours=cell(published.metric, beside.ours, is_bound=is_bound),
        ours_value=beside.ours,
        gap="another task" if beside.gap is None else f"{beside.gap:+.3f}",
        comparable=beside.comparable,
        words="; ".join(words) or "nothing that is known",
        arxiv=published.arxiv,
        where=published.where or "",
    )
