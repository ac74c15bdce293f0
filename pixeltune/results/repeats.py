"""Rows of a search with `repeats`, merged to one row a configuration: means over its seeds, with standard errors.

A repeat is a trial of its own, with its own number, row and curve. Its column `repeat_of` names the first trial of the
configuration, and its seed differs. In a search with `repeats=R` the column `repeats` of every row is R; in all others
it is empty, and rows are returned as they are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status
from pixeltune.space.metrics import KNOWN_EARLY, METRICS, sign

SEEDS = "seeds"
"""The key of a merged row with the number of seeds that its means are over."""
SEEDS_LEFT = "seeds_left"
"""The key with the number of seeds that are missing; 0 once the configuration may count as the best."""
RUNS = "runs"
"""The key with the names of the configuration's trials, the first one first."""
MERGED = (SEEDS, SEEDS_LEFT, RUNS, *(f"{name}_error" for name in METRICS))
"""The keys that a merged row has in addition to the columns."""

_FEWEST = 2
"""Seeds that must have finished, of those that have ended, before a configuration may count as the best."""
_OPEN = (Status.RUNNING, Status.INTERRUPTED)
_REFUTES = (Status.DIVERGED, Status.REJECTED)
"""Ends of a repeat that its configuration then has too; failed, oom and stopped only leave one seed less."""


def merge_repeats(rows: Iterable[Row]) -> list[Row]:
    """Return one row a configuration, in the order of the first trials; rows that were merged before stay as they are.

    The metrics of a merged row are means over the seeds that finished; `METRIC_error` is the standard error of each,
    None with one seed; the other columns are those of the first trial. `seeds`, `seeds_left` and `runs` are the number
    of seeds in the means, the number of those that are missing, and the names of the trials. None is missing once all
    seeds have ended and at least two of them have finished. If a repeat diverged or
    was rejected, the merged row has its status and reason; if it was stopped out of bounds, its costs; if a code
    refutes its bits, the merged row is refuted.

    A trial that `pixeltune continue` has trained further is a row of its own, with one seed.

    Args:
        rows: The latest rows of the trials of one search or of several.
    """
    rows = list(rows)
    if not any(row.get("repeats") and SEEDS not in row for row in rows):
        return rows
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    continued = {_configuration(row) for row in rows if row.get("continues_attempt") is not None}
    return [
        runs[0] if SEEDS in runs[0] or not runs[0].get("repeats") else _merged(runs, continued)
        for runs in groups.values()
    ]


def plain_row(row: Row) -> Row:
    """Return a merged row as the row of a trial that is not repeated, for a search that only gets its number."""
    return {name: value for name, value in row.items() if name not in MERGED} | {"repeats": None}


def first_trial(row: Mapping[str, Any]) -> str:
    """Return the first trial of a row's configuration: the trial itself, or the one that it repeats."""
    return str(row.get("repeat_of") or row["trial"])


def is_settled(row: Mapping[str, Any]) -> bool:
    """Return whether a merged row may count as the best: all of its seeds have ended, and two or more finished."""
    return not row.get(SEEDS_LEFT)


def seeds_text(row: Mapping[str, Any]) -> str:
    """Return the number of seeds of a merged row as text; "" where one is enough."""
    if SEEDS not in row:
        return ""
    of = f" of {row[SEEDS] + row[SEEDS_LEFT]}" if row[SEEDS_LEFT] else ""
    return f"{row[SEEDS]}{of} seed{'s' * ((row[SEEDS] + row[SEEDS_LEFT]) != 1)}"


def mean_words(row: Mapping[str, Any]) -> str:
    """Return `, mean of 3 seeds,` to follow the trial of a merged row; "" where it has one number."""
    return f", mean of {seeds_text(row)}," if row.get(SEEDS, 1) > 1 else ""


def trial_text(row: Mapping[str, Any]) -> str:
    """Return the trial of a row, and its seeds if it is merged: `00003, 1 of 3 seeds`."""
    return ", ".join(filter(None, [row["trial"], seeds_text(row)]))


def error_text(row: Mapping[str, Any], metric: str, digits: int = 4) -> str:
    """Return " ± " and the standard error of a metric; "" with one seed."""
    error = row.get(f"{metric}_error")
    return "" if error is None else f" ± {error:.{digits}f}"


def _configuration(row: Row) -> tuple[object, ...]:
    return row.get("search"), first_trial(row)


def _group(row: Row) -> tuple[object, ...]:
    is_alone = row.get("continues_attempt") is not None or SEEDS in row
    return (*_configuration(row), row["trial"] if is_alone else None)


def _merged(runs: Sequence[Row], continued: Iterable[tuple[object, ...]]) -> Row:
    runs = sorted(runs, key=lambda row: (row.get("repeat_of") is not None, row.get("number") or 0))
    first = runs[0]
    if first.get("continues_attempt") is not None:
        alone = {SEEDS: 1, SEEDS_LEFT: 0, RUNS: [first["trial"]]}
        return first | alone | {f"{name}_error": None for name in METRICS}
    finished = [row for row in runs if row["status"] == Status.FINISHED]
    counted = finished or runs[:1]
    elsewhere = int(_configuration(first) in continued)
    ended = sum(row["status"] not in _OPEN for row in runs) + elsewhere
    merged = counted[0] | {
        SEEDS: len(counted),
        SEEDS_LEFT: max(0, first["repeats"] - ended, _FEWEST - len(counted) - elsewhere),
        RUNS: [row["trial"] for row in runs],
    }
    for name in METRICS:
        merged |= _mean(name, [row.get(name) for row in counted])
    return merged | _doubts(merged, runs)


def _mean(name: str, values: Sequence[Any]) -> Row:
    """Return the mean and the standard error of a metric; None for both where a seed lacks it."""
    if len(values) == 1 or None in values:
        return {name: values[0] if len(values) == 1 else None, f"{name}_error": None}
    mean = math.fsum(values) / len(values)
    is_same = all(value == values[0] for value in values)  # such as the parameters, which stay a whole number
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {name: values[0] if is_same else mean, f"{name}_error": error}


def _doubts(merged: Row, runs: Sequence[Row]) -> Row:
    """Return the columns in which one repeat decides about the configuration."""
    found: Row = {}
    refuted = next((row for row in runs if row.get("bits_verified") is not None and not row["bits_verified"]), None)
    if refuted is not None:
        found |= {"bits_verified": False, "bits_unverified_reason": refuted.get("bits_unverified_reason")}
    bad = next((row for row in runs[1:] if row["status"] in _REFUTES), None)
    if bad is not None:
        reason = f"with seed {bad.get('seed')} (trial {bad['trial']})"
        found |= {"status": bad["status"], "reason": ": ".join(filter(None, [reason, bad["reason"]]))}
    for row in runs[1:]:
        if row["status"] == Status.PRUNED:  # repeats are not stopped early, so it is out of bounds
            found |= {name: _worse(name, found.get(name, merged[name]), row.get(name)) for name in KNOWN_EARLY}
    return found


def _worse(name: str, one: Any, other: Any) -> Any:
    known = [value for value in (one, other) if value is not None]
    return max(known, key=lambda value: sign(name) * value, default=None)
