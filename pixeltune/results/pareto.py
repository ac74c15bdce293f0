"""The front of several objectives: the trials that no other beats. pandas only where a table comes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.errors import StoreError
from pixeltune.results.judge import SAME_IN_ALL, is_unconfirmed, require_same
from pixeltune.results.rows import Row
from pixeltune.results.schema import Status
from pixeltune.space.metrics import METRICS, not_met

if TYPE_CHECKING:
    import pandas as pd


def front(rows: Iterable[Row], objectives: Sequence[str], constraints: Mapping[str, float] | None = None) -> list[Row]:
    """The rows that no other beats, lowest first objective first.

    One beats another if it is no worse in any objective and better in one. Only finished trials that keep to the
    constraints, with all objectives known and bits that no real code refutes, are compared: a stopped one has spent
    less than it would have, and its numbers are those of an unfinished model. Rows of other images are refused.
    """
    _require_metrics(objectives, constraints or {})
    able = [row for row in rows if _can_stand(row, objectives, constraints or {})]
    require_same(able)
    losses = [[row[name] if METRICS[name] == "minimize" else -row[name] for name in objectives] for row in able]
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
