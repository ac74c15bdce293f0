"""The published results nearest in kind to a row of ours, as plain rows and as lines of text; no pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixeltune.published.comparability import (
    Comparability,
    NumberSpec,
    check_comparable,
    has_gap,
    identity_of,
    is_near,
    published_for,
)
from pixeltune.published.table import Exactness, PublishedResult, is_pixelcnn
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import bound_mark, value_of
from pixeltune.results.repeats import mean_words

UNITS = {"bits_per_dim": "bits/dim", "nats": "nats"}
"""The units of published numbers, by their metric."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A number of ours next to a published one, and whether they compare; all output about the two is made from it.

    Attributes:
        published: The published result.
        comparability: What differs, and what is not known.
        has_gap: Whether the difference of the two means anything; see `comparability.has_gap`.
        ours: Our number in the metric of the published one; None where it is not known.
    """

    published: PublishedResult
    comparability: Comparability
    has_gap: bool
    ours: float | None = None

    @classmethod
    def of(cls, identity: NumberSpec, published: PublishedResult, row: Mapping[str, Any] | None = None) -> Comparison:
        """Compare a published result with the identity of a number of ours, and with the number of a row."""
        return cls(
            published=published,
            comparability=check_comparable(identity, published),
            has_gap=has_gap(identity, published),
            ours=None if row is None else value_of(row, published.metric),
        )

    @property
    def gap(self) -> float | None:
        """Return ours − published, negative where ours is better; None where the difference means nothing."""
        return self.ours - self.published.value if self.ours is not None and self.has_gap else None

    @property
    def comparable(self) -> bool:
        """Return whether nothing that matters differs."""
        return self.comparability.comparable

    @property
    def why_not(self) -> tuple[str, ...]:
        """Return what differs."""
        return self.comparability.why_not

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what is unknown or worth knowing."""
        return self.comparability.caveats

    @property
    def distance(self) -> tuple[int, float]:
        """Return the sort key of published results, nearest in kind first: the number of mismatches, then the value."""
        return len(self.why_not), self.published.value


def comparison(row: Row, limit: int = 6) -> list[Comparison]:
    """Return a row of ours next to the published results nearest in kind.

    Those of the same task and binarisation where there are any; of them the fewest mismatches, then the lowest.
    """
    identity = identity_of(row)
    results = published_for(identity)
    near = [result for result in results if is_near(identity, result)] or results
    found = [Comparison.of(identity, result, row) for result in near]
    return sorted((each for each in found if each.ours is not None), key=lambda each: each.distance)[:limit]


def nearest_rows(records: Sequence[Mapping[Any, Any]], most: int | None) -> list[Mapping[Any, Any]]:
    """Return rows of `compare` for one number of ours: the PixelCNN family, then the others, nearest in kind first.

    Args:
        records: The rows, each with `model`, `published`, `why_not` and `evidence`.
        most: How many to return; None for all. The user's own rows are always among them, and two thirds are kept for
            the PixelCNN family, because the numbers of a bound are nearer in kind to those of other families.
    """

    def distance(record: Mapping[Any, Any]) -> tuple[int, float]:
        return len(reasons_of(record)), record["published"]

    ordered = sorted(records, key=distance)
    if most is not None:
        family = [record for record in ordered if is_pixelcnn(record["model"])]
        first = [record for record in ordered if record["evidence"] == "own"] + family[: 2 * most // 3]
        rest = [record for record in ordered if not any(record is each for each in first)]
        unique = [record for record in ordered if any(record is each for each in first)]
        ordered = sorted([*unique, *rest[: max(0, most - len(unique))]], key=distance)
    return sorted(ordered, key=lambda record: not is_pixelcnn(record["model"]))


def reasons_of(record: Mapping[Any, Any]) -> list[str]:
    """Return the mismatches of a row of `compare`."""
    return str(record["why_not"]).split("; ") if record["why_not"] else []


def shared_reasons(why_not: Sequence[Sequence[str]]) -> list[str]:
    """Return the mismatches that all comparisons have; `why_not` holds those of each."""
    return [reason for reason in why_not[0] if all(reason in others for others in why_not)]


def comparison_lines(row: Row, limit: int = 6, *, name: str = "") -> list[str]:
    """Return the lines about the best row at the end of a search: the nearest published numbers, comparable or not.

    name: what the row is, if it is not a trial.
    """
    compared = comparison(row, limit)
    if not compared:
        return [f"No published results for {row.get('data.name')}; the order-0 baseline is the yardstick."]
    mark = bound_mark(row)
    numbers = (f"{mark}{each.ours:.4g} {UNITS[each.published.metric]}" for each in compared)
    units = " and ".join(dict.fromkeys(numbers))
    kind = "test" if row.get("evaluated_split") == "test" else "validation"
    shared = shared_reasons([each.why_not for each in compared])
    verdict = f"; not comparable: {'; '.join(shared)}" if shared else ""
    name = name or f"trial {row['trial']}{mean_words(row)}"
    return [
        f"Compared with published results: {name} with {units} ({kind}){verdict}.",
        *(_line(each, shared) for each in compared),
    ]


def _line(compared: Comparison, shared: Sequence[str]) -> str:
    published = compared.published
    arxiv = f", arXiv {published.arxiv}" if published.arxiv else ""
    own = [reason for reason in compared.why_not if reason not in shared]
    notes = ["comparable"] if compared.comparable else []
    notes += [f"not comparable: {'; '.join(own)}"] if own else []
    notes += [f"caveat: {'; '.join(compared.caveats)}"] if compared.comparable and compared.caveats else []
    gap = "" if compared.gap is None else f"{compared.gap:+.3f}"
    source = f"{published.model} ({published.year}{arxiv})"
    return f"  {published.value:<7.5g} {gap:6}  {source}{': ' if notes else ''}{', '.join(notes)}"


def best_published(ours: NumberSpec, row: Mapping[str, Any] | None = None) -> Comparison | None:
    """Return the lowest of the closest published results to `ours`; None where none is near.

    Closest: of the same task and binarisation, exact or a bound, not in doubt, fewest mismatches.
    """
    near = [
        Comparison.of(ours, result, row)
        for result in published_for(ours)
        if result.likelihood in (Exactness.EXACT, Exactness.LOWER_BOUND)
        and is_near(ours, result)
        and result.split == result.test_split
        and not result.doubt
        and not result.upper_limit
    ]
    return min(near, key=lambda each: each.distance, default=None)


def nearest_published_note(row: Mapping[str, Any]) -> str:
    """Return the closest published result of the row's task, with gap and mismatches, to follow a number; or ""."""
    nearest = best_published(identity_of(row), row)
    if nearest is None or nearest.gap is None:
        return ""
    notes = "; ".join([f"{nearest.gap:+.3f}", *nearest.why_not])
    return f"; published {nearest.published.value:g} {UNITS[nearest.published.metric]} ({notes})"
