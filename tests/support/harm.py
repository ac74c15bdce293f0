"""What a fault did to a search of no-op trials: counted in its store, told in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pixeltune.results.parquet_io import Row, to_rows
from pixeltune.results.store import SearchStore, trial_name
from pixeltune.space import SearchSpace
from tests.support.noop import value_of

_RANKED = ("finished", "pruned")


@dataclass
class Harm:
    """Of one run. rows: of attempts; reports: of their curves. wrong: numbers that are not those of the trial.

    left_behind: processes. other: whatever else was not as it should be. words: a line for each of them.
    seconds: from the fault to the search's end; NaN where there was none.
    """

    rows_lost: int = 0
    rows_doubled: int = 0
    reports_lost: int = 0
    reports_doubled: int = 0
    wrong: int = 0
    hangs: int = 0
    left_behind: int = 0
    other: int = 0
    seconds: float = float("nan")
    words: list[str] = field(default_factory=list)

    def add(self, kind: str, words: str, count: int = 1) -> None:
        """Count it, where there is something to count."""
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            self.words.append(f"{kind}: {words}")

    def require(self, holds: bool, words: str) -> None:
        """Anything of the kind `other`."""
        self.add("other", words, count=not holds)

    def plain(self) -> dict[str, Any]:
        """As a row of a table."""
        return asdict(self) | {"seconds": round(self.seconds, 2), "words": "\n".join(self.words)}


@dataclass(frozen=True)
class Before:
    """What stood in a store before a fault: rows of attempts that were over, and all reports."""

    rows: list[Row]
    reports: list[Row]

    @classmethod
    def of(cls, store: SearchStore) -> Before:
        """As it is now."""
        if not store.exists():
            return cls([], [])
        return cls([row for row in store.attempts() if row["status"] != "running"], to_rows(store.curve_files.read()))


def count_harm(
    harm: Harm, store: SearchStore, space: SearchSpace, *, ends: Mapping[str, str] | None = None, before: Before
) -> None:
    """Look at a search that should have come to its end. ends: of trials that end in a way of their own."""
    rows, reports = store.attempts(), to_rows(store.curve_files.read())
    _count_rows(harm, store, space.budget.trials, rows)
    for trial in sorted({row["trial"] for row in rows}):
        mine = [row for row in rows if row["trial"] == trial]
        wanted = (ends or {}).get(trial)
        status = mine[-1]["status"]
        if status not in ((wanted,) if wanted else _RANKED):
            harm.add("rows_lost", f"{trial} must have ended {wanted or 'finished or pruned'}, but is {status}")
        harm.require(len({row["config_key"] for row in mine}) == 1, f"{trial} changed its configuration")
        _count_reports(harm, space, mine[-1], [point for point in reports if point["trial"] == trial])
    changed = [row for row in before.rows if row not in rows]
    harm.add("rows_lost", f"changed or gone: {_names(changed)}", len(changed))
    gone = [point for point in before.reports if point not in reports]
    harm.add("reports_lost", f"changed or gone: {_names(gone)}", len(gone))
    harm.require(not Path(store.folder, "_corrupt").exists(), "a file could not be read and was set aside")


def _count_rows(harm: Harm, store: SearchStore, trials: int, rows: list[Row]) -> None:
    attempts = Counter((row["trial"], row["attempt"]) for row in rows)
    harm.add("rows_doubled", "the same attempt again", sum(attempts.values()) - len(attempts))
    plain = pq.read_table(store.trials_folder, columns=["trial", "attempt"]).num_rows
    harm.add("rows_doubled", "in the files, as pandas reads them", abs(plain - len(rows)))
    last = {trial: max(number for name, number in attempts if name == trial) for trial, _ in attempts}
    planned = {trial_name(number) for number in range(trials)}
    harm.add("rows_lost", f"trials {sorted(planned - set(last))}", len(planned - set(last)))
    harm.add("rows_doubled", f"beyond the budget {sorted(set(last) - planned)}", len(set(last) - planned))
    missing = {(trial, n) for trial, most in last.items() for n in range(1, most + 1)} - set(attempts)
    harm.add("rows_lost", f"attempts {sorted(missing)}", len(missing))
    ended = ("finished", "pruned", "diverged", "oom", "rejected")
    anew = [row for row in rows if row["status"] in ended and row["attempt"] < last[row["trial"]]]
    harm.add("rows_doubled", f"tried again after their end: {_names(anew)}", len(anew))
    running = [row for row in rows if row["status"] == "running"]
    harm.add("rows_lost", f"without an end: {_names(running)}", len(running))


def _count_reports(harm: Harm, space: SearchSpace, row: Row, points: list[Row]) -> None:
    """The last row of a trial, and the reports of all its attempts."""
    trial, every = row["trial"], space.base.train.report_every or space.base.train.batch_size
    ordered = [point["images_seen"] for point in sorted(points, key=lambda p: (p["attempt"], p["images_seen"]))]
    harm.require(ordered == sorted(ordered), f"{trial} went back across attempts: {ordered}")
    harm.add("reports_doubled", f"{trial}: {ordered}", len(ordered) - len(set(ordered)))
    planned = set(range(every, (row["images_seen"] or 0) + 1, every))
    harm.add("reports_lost", f"{trial}: {sorted(planned - set(ordered))}", len(planned - set(ordered)))
    harm.add("reports_doubled", f"{trial}, beyond its row: {ordered}", len(set(ordered) - planned))
    if row["status"] == "finished":
        harm.require(row["images_seen"] == space.base.train.images, f"{trial} finished too early")
    values = {point["images_seen"]: value_of(row["optim.lr"], point["images_seen"]) for point in points}
    false = [point for point in points if point["valid_bits_per_dim"] != values[point["images_seen"]]]
    harm.add("wrong", f"{trial}: reports {_names(false)}", len(false))
    best = min(values.values(), default=None)
    harm.add(
        "wrong", f"{trial}: its row has {row['valid_bits_per_dim']}, not {best}", row["valid_bits_per_dim"] != best
    )


def _names(rows: Iterable[Row]) -> str:
    return ", ".join(f"{row['trial']}-{row['attempt']}" for row in rows)
