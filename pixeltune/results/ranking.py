"""Which rows are the best: what may be ranked, the leaderboard of one objective and the front of several; no pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.errors import StoreError
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status
from pixeltune.space.metrics import METRICS, not_met, sign

if TYPE_CHECKING:
    import pandas as pd

RANKED = (Status.FINISHED, Status.PRUNED)
"""Only these carry a number to compare: a rejected model is no distribution, the others did not get through."""


SAME_IN_ALL = ("data_checksum", "evaluated_split", "levels")
"""Rows that differ in one of these measure different things and are not ranked together."""


def require_same(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that measure different things."""
    for name in SAME_IN_ALL:
        values = sorted({str(row.get(name)) for row in rows})
        if len(values) > 1:
            raise StoreError(
                f"ranked rows must agree in {name}, but got {', '.join(values)}; keep the rows of one of them"
            )


def is_unconfirmed(row: Mapping[str, Any]) -> bool:
    """Whether images that were really coded took other bits than the row claims: such a row is never the best."""
    verified = row.get("bits_verified")
    return verified is not None and not verified


def value_of(row: Mapping[str, Any], metric: str) -> float | None:
    """The number of record of a row in `bits_per_dim` or `nats`: of the test set in a row of `final`."""
    value = row.get(f"{row.get('evaluated_split') or 'valid'}_{metric}")
    return None if value is None else float(value)


def bound_mark(row: Mapping[Any, Any]) -> str:
    """What stands before a likelihood of this row: "≤ " where it is a bound, of bits or nats from above."""
    return "≤ " if row.get("is_bound") else ""


def front(rows: Iterable[Row], objectives: Sequence[str], constraints: Mapping[str, float] | None = None) -> list[Row]:
    """The rows that no other beats, lowest first objective first.

    One beats another if it is no worse in any objective and better in one. Only finished trials that keep to the
    constraints, with all objectives known and bits that no real code refutes, are compared: a stopped one has spent
    less than it would have, and its numbers are those of an unfinished model. Rows of other images are refused.
    """
    _require_metrics(objectives, constraints or {})
    able = [row for row in rows if _can_stand(row, objectives, constraints or {})]
    require_same(able)
    losses = [[sign(name) * row[name] for name in objectives] for row in able]
    best = [row for row, own in zip(able, losses, strict=True) if not any(_beats(other, own) for other in losses)]
    return sorted(best, key=lambda row: (row[objectives[0]], row["trial"]))


def pareto(
    frame: pd.DataFrame, objectives: Sequence[str], constraints: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """`frame` (of `read_results`) with a column `on_front`: whether no other row beats it in `objectives`; see `front`.

    constraints: metric → bound, as in a SearchSpace.
    """
    _require_metrics(objectives, constraints or {})
    columns = [*dict.fromkeys(["search", "trial", "status", *SAME_IN_ALL, *objectives, *(constraints or {})])]
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise StoreError(f"pareto needs rows of read_results, but got a table without {', '.join(lacking)}")
    columns += [name for name in ("bits_verified",) if name in frame.columns]
    plain = frame[columns].astype(object)
    plain = plain.where(plain.notna(), None)
    rows = [dict(zip(columns, values, strict=True)) for values in plain.itertuples(index=False, name=None)]
    best = front(rows, objectives, constraints)
    return frame.assign(on_front=[any(row is other for other in best) for row in rows])


def _require_metrics(objectives: Sequence[str], constraints: Mapping[str, float]) -> None:
    if isinstance(objectives, str) or not objectives:
        raise StoreError(f"objectives must be a sequence of names, but got {objectives!r}")
    for what, names in (("objectives", objectives), ("constraints", constraints)):
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise StoreError(f"{what} must be among {', '.join(METRICS)}, but got {unknown[0]!r}")


def _can_stand(row: Mapping[str, Any], objectives: Sequence[str], constraints: Mapping[str, float]) -> bool:
    known = all(row.get(name) is not None for name in objectives)
    return row["status"] == Status.FINISHED and known and not is_unconfirmed(row) and not not_met(constraints, row)


def _beats(other: Sequence[float], own: Sequence[float]) -> bool:
    return other != own and all(its <= mine for its, mine in zip(other, own, strict=True))


_SECONDS = ("train_seconds", "eval_seconds", "compile_seconds", "audit_seconds")


def leaderboard(
    rows: Iterable[Row],
    objective: str = "valid_bits_per_dim",
    top: int | None = None,
    vary: Sequence[str] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> list[Row]:
    """The `top` best rows by `objective`, best first; only finished and pruned ones are ranked.

    Each has rank, trial, status, the keys in `vary` (by default those that differ between the rows), all METRICS,
    is_bound, below_baseline_percent (in bits/dim), images_seen and seconds (training, evaluation, compilation and
    audit). Rows that differ in SAME_IN_ALL are refused. Rows that do not keep to the constraints (metric → bound) come
    last, without a rank, and say why in `out_of_bounds`; so do, before them, rows whose bits a real code does not
    confirm, and `bits_verified` is false.
    """
    if objective not in METRICS:
        raise StoreError(f"objective must be among {', '.join(METRICS)}, but got {objective!r}")
    ranked = [row for row in rows if row["status"] in RANKED and row.get(objective) is not None]
    require_same(ranked)
    breaches = {row["trial"]: not_met(constraints or {}, row) for row in ranked}
    ranked.sort(
        key=lambda row: (
            bool(breaches[row["trial"]]),
            is_unconfirmed(row),
            sign(objective) * row[objective],
            row["trial"],
        )
    )
    keys = differing_keys(ranked) if vary is None else list(vary)
    return [
        {
            "rank": None if breaches[row["trial"]] or is_unconfirmed(row) else rank,
            **figures_of(row, keys),
            "out_of_bounds": breaches[row["trial"]] or None,
        }
        for rank, row in enumerate(ranked[:top], start=1)
    ]


def differing_keys(rows: Sequence[Row]) -> list[str]:
    """The configuration keys in which `rows` differ."""
    keys = [key for key in (rows[0] if rows else {}) if "." in key]
    return [key for key in keys if len({row.get(key) for row in rows}) > 1]


def status_counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows have each status, the most frequent first."""
    return dict(Counter(str(row["status"]) for row in rows).most_common())


def counted_statuses(rows: Iterable[Row]) -> str:
    """Return how many rows have each status, in words."""
    return ", ".join(f"{count} {status}" for status, count in status_counts(rows).items())


def figures_of(row: Row, keys: Sequence[str]) -> Row:
    """What a leaderboard tells of a row, ranked or not."""
    bits, baseline = row.get("valid_bits_per_dim"), row.get("baseline_bits_per_dim")
    below = None if bits is None or not baseline else 100.0 * (baseline - bits) / baseline
    return {
        "trial": row["trial"],
        "status": row["status"],
        **{key: row.get(key) for key in keys},
        **{name: row.get(name) for name in METRICS},
        "is_bound": bool(row.get("is_bound")),
        "bits_verified": row.get("bits_verified"),
        "images_seen": row.get("images_seen"),
        "below_baseline_percent": below,
        "seconds": sum(row.get(name) or 0.0 for name in _SECONDS),
    }
