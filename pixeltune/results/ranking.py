"""The only module that decides which rows are best: what is ranked, in which order, and the front. No pandas.

In a search with `repeats`, rows are merged to one a configuration first (`results.repeats`). A configuration counts as
the best once all of its seeds have ended; until one has, the best is the one with the best value so far.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from pixeltune.errors import StoreError
from pixeltune.results.parquet_io import Row
from pixeltune.results.repeats import MERGED, RUNS, is_settled, merge_repeats
from pixeltune.results.schema import Status
from pixeltune.space.metrics import METRICS, keeps_to, not_met, sign

if TYPE_CHECKING:
    import pandas as pd

RANKED = (Status.FINISHED, Status.PRUNED, Status.STOPPED)
"""The statuses with a number to compare: rejected models are not distributions, and the others did not complete."""


_OF_RECORD = ("bits_per_dim", "nats")
"""Names of the number of record; see `value_of`."""

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
    """Return whether a real code of images took other bits than the row claims; such a row is never the best."""
    verified = row.get("bits_verified")
    return verified is not None and not verified


def value_of(row: Mapping[str, Any], metric: str) -> float | None:
    """Return the number of record of a row in `bits_per_dim` or `nats`: of the test set in a row of `final`."""
    value = row.get(f"{row.get('evaluated_split') or 'valid'}_{metric}")
    return None if value is None else float(value)


def bound_mark(row: Mapping[Any, Any]) -> str:
    """Return the prefix of a likelihood of this row: "≤ " where it is an upper bound of bits or nats."""
    return "≤ " if row.get("is_bound") else ""


def best_first(
    rows: Iterable[Row],
    metric: str,
    constraints: Mapping[str, float] | None = None,
    *,
    ties: Sequence[str] = ("trial",),
    on_front: Container[str] | None = None,
    by_value_alone: bool = False,
) -> list[Row]:
    """Return all rows, the best first; `rank_key` defines the order.

    Contenders, which have a better value than the best configuration but not all of their seeds, follow that one.

    Args:
        rows: Rows of any status; those of a search with repeats merged.
        metric: A name of METRICS, or `bits_per_dim` or `nats` for the number of record; see `value_of`.
        constraints: Metric → bound.
        ties: The columns by which equal rows are ordered; without any they stay in the given order.
        on_front: The trials that no other beats; they come before the others.
        by_value_alone: Whether rows out of bounds and unconfirmed ones are ordered among the others by their value:
            for rows that a user names.
    """

    rows = list(rows)
    bar = least_settled(rows, metric, constraints)

    def key(row: Row) -> tuple[object, ...]:
        own = _loss_or_infinity(row, metric) if by_value_alone else rank_key(row, metric, constraints, on_front, bar)
        return (own, *(row[name] for name in ties))

    return sorted(rows, key=key)


def rank_key(
    row: Mapping[str, Any],
    metric: str,
    constraints: Mapping[str, float] | None = None,
    on_front: Container[str] | None = None,
    bar: float | None = None,
) -> tuple[bool, bool, bool, bool, float, bool, float]:
    """Return what orders rows from the best to the worst.

    Last come rows without a rank (`RANKED`), before them those that break a constraint, then those whose bits a real
    code refutes, then those that are not on the front, if one is given. Within each group the value decides; rows
    without a value come last. A row that lacks seeds comes after the best one that has them, whose loss is `bar`.
    """
    loss = _loss_or_infinity(row, metric)
    return (
        row["status"] not in RANKED,
        bool(not_met(constraints or {}, row)),
        is_unconfirmed(row),
        on_front is not None and row["trial"] not in on_front,
        loss if bar is None or is_settled(row) else max(loss, bar),
        not is_settled(row),
        loss,
    )


def least_settled(
    rows: Iterable[Mapping[str, Any]], metric: str, constraints: Mapping[str, float] | None = None
) -> float | None:
    """Return the loss of the best row that has all of its seeds; None without one, or where one seed is enough."""
    rows = list(rows)
    if all(map(is_settled, rows)):
        return None
    able = [row for row in rows if is_settled(row) and can_be_best(row, (metric,), constraints, statuses=RANKED)]
    return min((_loss_or_infinity(row, metric) for row in able), default=None)


def contenders(rows: Iterable[Row], metric: str, constraints: Mapping[str, float] | None = None) -> list[Row]:
    """Return the merged rows that may yet become the best: finished, with a better value, and without all seeds.

    While no configuration has all of its seeds, all finished ones may. The best value comes first.
    """
    merged = merge_repeats(rows)
    bar = least_settled(merged, metric, constraints)
    able = [row for row in merged if not is_settled(row) and can_be_best(row, (metric,), constraints)]
    better = [row for row in able if bar is None or _loss_or_infinity(row, metric) < bar]
    return sorted(better, key=lambda row: (_loss_or_infinity(row, metric), row["trial"]))


def best_row(rows: Iterable[Row], metric: str, constraints: Mapping[str, float] | None = None) -> Row | None:
    """Return the best row of a search that may still run; the first of equal ones; None where no row has a rank.

    A running row counts with its value so far, if it keeps to the constraints as far as is known. Rows of a search
    with repeats are merged.
    """
    counted = (*RANKED, Status.RUNNING)
    able = [row for row in merge_repeats(rows) if can_be_best(row, (metric,), constraints, statuses=counted)]
    return min(able, key=lambda row: (not is_settled(row), _loss_or_infinity(row, metric)), default=None)


def best_report(reports: Iterable[Row], metric: str) -> Row | None:
    """Return the report of one trial with the lowest number on validation, the first of equal ones."""
    validated = [report for report in reports if report[metric] is not None]  # a final's have none
    return min(validated, key=lambda report: report[metric], default=None)


def can_be_best(
    row: Mapping[str, Any],
    metrics: Sequence[str],
    constraints: Mapping[str, float] | None = None,
    *,
    statuses: Container[str] = (Status.FINISHED,),
) -> bool:
    """Return whether a row may be the best, by status, known values, bits not refuted by a code, and constraints.

    Args:
        row: A row. A running one must keep to the constraints as far as is known, another one in full.
        metrics: The names that must have a value; see `best_first`.
        constraints: Metric → bound.
        statuses: The statuses that count.
    """
    return (
        row["status"] in statuses
        and all(_loss(row, name) is not None for name in metrics)
        and not is_unconfirmed(row)
        and keeps_to(constraints or {}, row, has_ended=row["status"] != Status.RUNNING)
    )


def is_better(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether losses beat others: no worse in any, and better in one."""
    return one != other and all(its <= mine for its, mine in zip(one, other, strict=True))


def pareto_front(
    rows: Iterable[Row], objectives: Sequence[str], constraints: Mapping[str, float] | None = None
) -> list[Row]:
    """Return the rows that no other beats, lowest first objective first.

    One beats another if it is no worse in any objective and better in one. Only finished trials that satisfy the
    constraints, with all objectives known and bits that no real code refutes, are compared: a stopped one has spent
    less than it would have, and its numbers are those of an unfinished model. Rows of different images are refused.
    Rows of a search with repeats are merged, and only those with all of their seeds are compared.
    """
    _require_metrics(objectives, constraints or {})
    able = [row for row in merge_repeats(rows) if is_settled(row) and can_be_best(row, objectives, constraints)]
    require_same(able)
    return not_beaten(able, objectives)


def not_beaten(rows: Sequence[Row], objectives: Sequence[str]) -> list[Row]:
    """Return the rows that no other of them beats, lowest first objective first; all have all objectives."""
    losses = [[sign(name) * row[name] for name in objectives] for row in rows]
    best = [row for row, own in zip(rows, losses, strict=True) if not any(is_better(other, own) for other in losses)]
    return sorted(best, key=lambda row: (row[objectives[0]], row["trial"]))


def pareto(
    frame: pd.DataFrame, objectives: Sequence[str], constraints: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return a table of `read_results` with a column `on_front`: whether no other row beats the row.

    Args:
        frame: Rows of `read_results`.
        objectives: Names of METRICS; `pareto_front` defines which row beats which.
        constraints: Metric → bound in the metric's unit, as in a SearchSpace.

    Returns:
        A copy of `frame` with the boolean column `on_front`. In a search with repeats it is true of all trials of a
        configuration on the front.

    Raises:
        StoreError: The table lacks a column, or its rows measure different things.
    """
    _require_metrics(objectives, constraints or {})
    columns = [*dict.fromkeys(["search", "trial", "status", *SAME_IN_ALL, *objectives, *(constraints or {})])]
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise StoreError(f"pareto needs rows of read_results, but got a table without {', '.join(lacking)}")
    columns += [name for name in ("bits_verified", "number", "repeats", "repeat_of") if name in frame.columns]
    plain = frame[columns].astype(object)
    plain = plain.where(plain.notna(), None)
    rows = [dict(zip(columns, values, strict=True)) for values in plain.itertuples(index=False, name=None)]
    best = pareto_front(rows, objectives, constraints)
    return frame.assign(on_front=[any(_is_of(row, other) for other in best) for row in rows])


def _is_of(row: Row, configuration: Row) -> bool:
    """Return whether a row is the same as another one, or one of the trials of that merged row."""
    return row is configuration or (
        row["search"] == configuration["search"] and row["trial"] in configuration.get(RUNS, ())
    )


def _require_metrics(objectives: Sequence[str], constraints: Mapping[str, float]) -> None:
    if isinstance(objectives, str) or not objectives:
        raise StoreError(f"objectives must be a sequence of names, but got {objectives!r}")
    for what, names in (("objectives", objectives), ("constraints", constraints)):
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise StoreError(f"{what} must be among {', '.join(METRICS)}, but got {unknown[0]!r}")


def _loss(row: Mapping[str, Any], metric: str) -> float | None:
    """Return a value so that less is better; None where it is missing or no number."""
    is_of_record = metric in _OF_RECORD
    value = value_of(row, metric) if is_of_record else row.get(metric)
    if value is None or math.isnan(value):
        return None
    return float(value) if is_of_record else sign(metric) * value


def _loss_or_infinity(row: Mapping[str, Any], metric: str) -> float:
    loss = _loss(row, metric)
    return math.inf if loss is None else loss


_SECONDS = ("train_seconds", "eval_seconds", "compile_seconds", "audit_seconds")


def leaderboard(
    rows: Iterable[Row],
    objective: str = "valid_bits_per_dim",
    top: int | None = None,
    vary: Sequence[str] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> list[Row]:
    """Return the `top` best rows by `objective`, best first; only finished and pruned ones are ranked.

    Rows that differ in SAME_IN_ALL are refused.

    Returns:
        Rows with rank, trial, status, the keys in `vary` (by default those that differ between the rows), all METRICS,
        is_bound, below_baseline_percent (in bits/dim), images_seen and seconds (training, evaluation, compilation and
        audit). Rows that break a constraint (metric → bound) come last, without a rank, and `out_of_bounds` says why.
        Rows whose bits a real code refutes come before them, also without a rank; their `bits_verified` is false.
        In a search with repeats there is one row a configuration, with means over its seeds, `seeds`, `seeds_left`,
        `runs` and `METRIC_error`. Contenders follow the best one without a rank.
    """
    if objective not in METRICS:
        raise StoreError(f"objective must be among {', '.join(METRICS)}, but got {objective!r}")
    ranked = [row for row in merge_repeats(rows) if row["status"] in RANKED and _loss(row, objective) is not None]
    require_same(ranked)
    bar = least_settled(ranked, objective, constraints)
    ranked = best_first(ranked, objective, constraints)
    breaches = {row["trial"]: not_met(constraints or {}, row) for row in ranked}
    keys = differing_keys(ranked) if vary is None else list(vary)
    numbers = count(1)
    return [
        {
            "rank": next(numbers) if _has_rank(row, objective, constraints, bar) else None,
            **figures_of(row, keys),
            "out_of_bounds": breaches[row["trial"]] or None,
        }
        for row in ranked[:top]
    ]


def _has_rank(row: Row, objective: str, constraints: Mapping[str, float] | None, bar: float | None) -> bool:
    if not_met(constraints or {}, row) or is_unconfirmed(row):
        return False
    return bar is None or is_settled(row) or _loss_or_infinity(row, objective) >= bar


def differing_keys(rows: Sequence[Row]) -> list[str]:
    """Return the configuration keys in which `rows` differ."""
    keys = [key for key in (rows[0] if rows else {}) if "." in key]
    return [key for key in keys if len({row.get(key) for row in rows}) > 1]


def status_counts(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many rows have each status, the most frequent first."""
    return dict(Counter(str(row["status"]) for row in rows).most_common())


def counted_statuses(rows: Iterable[Row]) -> str:
    """Return how many rows have each status, as text."""
    return ", ".join(f"{count} {status}" for status, count in status_counts(rows).items())


def figures_of(row: Row, keys: Sequence[str]) -> Row:
    """Return the columns of a leaderboard for a row, ranked or not."""
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
        "space_version": row.get("space_version") or 1,
        "continues_attempt": row.get("continues_attempt"),
        "below_baseline_percent": below,
        "seconds": sum(row.get(name) or 0.0 for name in _SECONDS),
        **{name: row[name] for name in MERGED if name in row},
    }
