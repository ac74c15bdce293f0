"""The published results nearest in kind to a row of ours, as plain rows and as lines for people; no pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pixeltune.published.table import Exactness, PublishedResult
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import bound_mark, value_of

_UNITS = {"bits_per_dim": "bits/dim", "nats": "nats"}


def comparison(row: Row, limit: int = 6) -> list[dict[str, Any]]:
    """A row of ours beside the published results nearest in kind.

    Those of the same task and binarisation where there are any; of them the fewest mismatches, then the lowest.
    Each has model, year, metric, published, ours, gap (ours − published, None where the task is another), comparable,
    why_not, caveats, likelihood (a word of `Exactness`), split, arxiv, where.
    """
    identity = identity_of(row)
    results = published_for(identity)
    near = [result for result in results if is_near(identity, result)] or results
    judged = [_beside(row, identity, result) for result in near]
    measured = [beside for beside in judged if beside["ours"] is not None]
    return sorted(measured, key=lambda beside: (len(beside["why_not"]), beside["published"]))[:limit]


def comparison_lines(row: Row, limit: int = 6, *, name: str = "") -> list[str]:
    """What the end of a search says of its best row: published numbers beside it, and whether they compare.

    name: what the row is, where it is no trial.
    """
    besides = comparison(row, limit)
    if not besides:
        return [f"No published results for {row.get('data.name')}; the order-0 baseline is the yardstick."]
    mark = bound_mark(row)
    units = " and ".join(dict.fromkeys(f"{mark}{beside['ours']:.4g} {_UNITS[beside['metric']]}" for beside in besides))
    kind = "test" if row.get("evaluated_split") == "test" else "validation"
    shared = [reason for reason in besides[0]["why_not"] if all(reason in beside["why_not"] for beside in besides)]
    verdict = f"; not comparable: {'; '.join(shared)}" if shared else ""
    return [
        f"Beside published results: {name or 'trial ' + row['trial']} with {units} ({kind}){verdict}.",
        *(_line(beside, shared) for beside in besides),
    ]


def _line(beside: Mapping[str, Any], shared: Sequence[str]) -> str:
    arxiv = f", arXiv {beside['arxiv']}" if beside["arxiv"] else ""
    own = [reason for reason in beside["why_not"] if reason not in shared]
    notes = ["comparable"] if beside["comparable"] else []
    notes += [f"not comparable: {'; '.join(own)}"] if own else []
    notes += [f"caveat: {'; '.join(beside['caveats'])}"] if beside["comparable"] and beside["caveats"] else []
    gap = "" if beside["gap"] is None else f"{beside['gap']:+.3f}"
    source = f"{beside['model']} ({beside['year']}{arxiv})"
    return f"  {beside['published']:<7.5g} {gap:6}  {source}{': ' if notes else ''}{', '.join(notes)}"


def _beside(row: Row, identity: NumberSpec, result: PublishedResult) -> dict[str, Any]:
    verdict = check_comparable(identity, result)
    ours = value_of(row, result.metric)
    return {
        "model": result.model,
        "year": result.year,
        "metric": result.metric,
        "published": result.value,
        "ours": ours,
        "gap": ours - result.value if ours is not None and has_gap(identity, result) else None,
        "comparable": verdict.comparable,
        "why_not": list(verdict.why_not),
        "caveats": list(verdict.caveats),
        "likelihood": str(result.likelihood),
        "split": result.split,
        "arxiv": result.arxiv,
        "where": result.where,
    }


def best_published(ours: NumberSpec) -> tuple[PublishedResult, Comparability] | None:
    """The yardstick for `ours`: of the closest published results, the lowest; None where none is near.

    Closest: of the same task and binarisation, exact or a bound, not in doubt, fewest mismatches.
    """
    near = [
        (result, check_comparable(ours, result))
        for result in published_for(ours)
        if result.likelihood in (Exactness.EXACT, Exactness.LOWER_BOUND)
        and is_near(ours, result)
        and result.split == result.test_split
        and not result.doubt
        and not result.upper_limit
    ]
    return min(near, key=lambda pair: (len(pair[1].why_not), pair[0].value), default=None)


def nearest_published_note(row: Mapping[str, Any]) -> str:
    """The closest published result of the row's task, with the gap and what else differs, to follow a number; or ""."""
    nearest = best_published(identity_of(row))
    ours = value_of(row, nearest[0].metric) if nearest else None
    if nearest is None or ours is None:
        return ""
    published, verdict = nearest
    unit = "bits/dim" if published.metric == "bits_per_dim" else "nats"
    notes = "; ".join([f"{ours - published.value:+.3f}", *verdict.why_not])
    return f"; published {published.value:g} {unit} ({notes})"
