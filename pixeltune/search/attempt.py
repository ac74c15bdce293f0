"""One attempt at a trial: its plan, its reports so far, and its row."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pixeltune import files
from pixeltune.config import TrialConfig
from pixeltune.own_code import folders_for_workers, split_place
from pixeltune.results.own_keys import own_columns
from pixeltune.results.ranking import best_report
from pixeltune.results.schema import TRIAL_COLUMNS, Status
from pixeltune.results.store import SearchStore, trial_name
from pixeltune.search.messages import TrialTask
from pixeltune.space import Resources, SearchSpace

Row = dict[str, Any]

_BEGAN = datetime.now(UTC), time.monotonic()


def now() -> datetime:
    """Return the launch's start time plus the monotonic time since; GPU-hours must not jump when the clock is set."""
    began, seconds = _BEGAN
    return began + timedelta(seconds=time.monotonic() - seconds)


UNDECIDED = (Status.RUNNING, Status.INTERRUPTED)
"""Statuses of trials that resume when the search does."""

_LONGEST_REASON = 300
_OUT_OF_MEMORY = ("OutOfMemoryError", "running low on memory")
"""Messages of torch, and of Ray when it kills the largest process before the machine runs out of memory."""

_BEST_REPORT = (
    "step",
    "epoch",
    "train_bits_per_dim",
    "train_nats",
    "valid_bits_per_dim",
    "valid_nats",
    "valid_bits_per_dim_raw",
    "valid_nats_raw",
    "valid_bits_per_dim_ema",
    "valid_nats_ema",
    "grad_norm",
)


@dataclass(frozen=True)
class TrialPlan:
    """One attempt at a trial. suggestion: the varied keys with their values.

    proposed_by, space_version, repeat_of: the columns of its row.
    """

    number: int
    attempt: int
    suggestion: dict[str, Any]
    config: TrialConfig
    proposed_by: str | None = None
    space_version: int | None = None
    repeat_of: str | None = None

    @property
    def trial(self) -> str:
        """Return the trial's id: its number in five digits."""
        return trial_name(self.number)

    def next_attempt(self) -> TrialPlan:
        """Return the plan of this trial's next attempt."""
        return replace(self, attempt=self.attempt + 1)

    def to_task(self, space: SearchSpace, store: SearchStore, resources: Resources) -> TrialTask:
        """Return the task for the trial's process with these resources; its results are kept in `store`."""
        return TrialTask(
            trial=self.trial,
            config=json.loads(_found_from_anywhere(self.config).model_dump_json()),
            checkpoint=files.absolute(store.checkpoint(self.trial)),
            objective=objective_of(space),
            cpus=resources.cpus,
            gpu_share=resources.gpus or 1.0,
            galleries=space.galleries,
            gallery=files.absolute(store.gallery(self.trial)),
            images=files.absolute(store.images(self.trial)) if space.is_final else "",
            search=store.search,
            search_id=store.search_id or "",
            attempt=self.attempt,
            speed_first=space.measures_speed_first(),
            code=folders_for_workers(),
        )


def objective_of(space: SearchSpace) -> str:
    """Return the `EpochReport` field by which a trial's best report is chosen."""
    first = space.objectives[0]
    return first if first in ("valid_bits_per_dim", "valid_nats") else "valid_bits_per_dim"


def _found_from_anywhere(config: TrialConfig) -> TrialConfig:
    """Return the configuration with an absolute `data.path`, as a trial's process has its own working directory."""
    path = config.data.path
    return config if path is None else config.override({"data.path": files.absolute(path)})


@dataclass
class RunningAttempt:
    """A running attempt at a trial. Only `SearchState` changes it, through its methods.

    Attributes:
        plan: The attempt.
        resources: What it holds.
        started_at: When it started.
        facts: Columns of its row that are known so far.
        reports: By images seen, those of earlier attempts included.
        new_reports: Its own reports.
        progress: Where it is since its last report, with `reported_at`; None if it has not sent any since.
        end: Its status and reason, once they are reported or decided; None while it continues.
        ended_at: When it ended; None while it runs.
        gpu_seconds_before: What the attempts before it have cost.
        dollars_before: The same in dollars; None if none of them had a price.
        traceback: Of its crash.
    """

    plan: TrialPlan
    resources: Resources
    started_at: datetime
    facts: Row = field(default_factory=dict)
    reports: dict[int, Row] = field(default_factory=dict)
    new_reports: list[Row] = field(default_factory=list)
    progress: Row | None = None
    end: tuple[Status, str | None] | None = None
    ended_at: datetime | None = None
    gpu_seconds_before: float = 0.0
    dollars_before: float | None = None
    traceback: str | None = None

    @classmethod
    def begin(cls, plan: TrialPlan, resources: Resources, earlier: RunningAttempt | None = None) -> RunningAttempt:
        """Return an attempt that starts now, with the reports and the cost of the `earlier` one."""
        attempt = cls(plan, resources, started_at=now())
        if earlier is not None:
            attempt.reports = earlier.reports
            attempt.gpu_seconds_before = earlier.gpu_seconds()
            attempt.dollars_before = earlier.dollars()
        return attempt

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Add columns of the row that have become known."""
        self.facts |= facts

    def add(self, report: Mapping[str, Any]) -> None:
        """Add a report of this attempt, with its time and what the trial has cost until then."""
        spent = {"gpu_seconds": self.gpu_seconds(), "peak_memory_bytes": self.facts.get("peak_memory_bytes")}
        self.new_reports.append(dict(report) | {"reported_at": now()} | spent)
        self.reports[report["images_seen"]] = self.new_reports[-1] | {"attempt": self.plan.attempt}
        self.progress = None

    def advance(self, progress: Mapping[str, Any]) -> None:
        """Keep where the attempt is between two reports, with its time."""
        self.progress = dict(progress) | {"reported_at": now()}

    def in_order(self) -> list[Row]:
        """Return the reports, those of earlier attempts included, by images seen."""
        return [self.reports[images] for images in sorted(self.reports)]

    def keep_reports(self, images: Container[int]) -> None:
        """Forget the reports of earlier attempts at other numbers of images."""
        self.reports = {seen: report for seen, report in self.reports.items() if seen in images}

    def conclude(self, status: Status, reason: str | None) -> None:
        """Record how the attempt ends, as it reported or as the search decided; its process may still run."""
        self.end = status, reason

    def finish(self, crash: str | None, interruption: str) -> tuple[Status, str | None]:
        """Stop the clock, and return how the attempt ended and why.

        The end is the one given to `conclude`; without one, a crash if there is a traceback, else an interruption.
        """
        self.ended_at = now()
        if self.end is not None:
            return self.end
        self.traceback = crash
        if crash is None:
            return Status.INTERRUPTED, interruption
        status = Status.OOM if any(text in crash for text in _OUT_OF_MEMORY) else Status.FAILED
        return status, _last_words(crash)

    def gpu_seconds(self) -> float:
        """Return wall time × GPUs held over all attempts, including crashes and attempts without a report."""
        return self.gpu_seconds_before + self._seconds_held() * self.resources.gpus * self.resources.workers

    def dollars(self) -> float | None:
        """Return wall time × price over all attempts that had a price; None if none had one."""
        price = self.resources.dollars_per_hour
        if price is None:
            return self.dollars_before
        return (self.dollars_before or 0.0) + self._seconds_held() / 3600 * price

    def _seconds_held(self) -> float:
        return ((self.ended_at or now()) - self.started_at).total_seconds()


def needs_exclusive_retry(row: Row) -> bool:
    """Return whether the OOM may be due to another trial on the same GPU; then the configuration is not blamed yet."""
    return row["status"] == Status.OOM and 0 < (row["gpus_per_worker"] or 0) < 1


def to_row(
    attempt: RunningAttempt, status: Status, reason: str | None, whose: Mapping[str, Any], objective: str
) -> Row:
    """Return an attempt's row. whose: `search`, `baseline_bits_per_dim` and where a final found the configuration.

    objective: the report's field by which the best one is chosen.
    """
    plan = attempt.plan
    row: Row = {**plan.config.flat(), **own_columns(plan.config), **whose, **attempt.facts}
    row |= {
        "search": whose["search"],
        "trial": plan.trial,
        "attempt": plan.attempt,
        "number": plan.number,
        "proposed_by": plan.proposed_by,
        "repeat_of": plan.repeat_of,
        "space_version": plan.space_version,
        "config_key": attempt.facts.get("config_key", plan.config.key()),
        "status": str(status),
        "reason": reason,
        "traceback": attempt.traceback or attempt.facts.get("traceback"),
        "started_at": attempt.started_at,
        "finished_at": attempt.ended_at,
        "workers": attempt.resources.workers,
        "cpus_per_worker": attempt.resources.cpus,
        "gpus_per_worker": attempt.resources.gpus,
        "gpu_seconds": attempt.gpu_seconds(),
        "dollars_per_hour": attempt.resources.dollars_per_hour,
        "dollars": attempt.dollars(),
        "peak_memory_bytes": _peak(attempt),
    }
    return dict.fromkeys(TRIAL_COLUMNS) | row | _metrics(attempt.reports, objective)


def _metrics(reports: Mapping[int, Row], objective: str) -> Row:
    """Return the best report's numbers (the last one's without validation); images and seconds are those of the
    whole trial."""
    if not reports:
        return {}
    last = reports[max(reports)]
    best = best_report(reports.values(), objective) or last
    return {
        **{name: best[name] for name in _BEST_REPORT},
        **{name: last[name] for name in ("train_seconds", "eval_seconds", "compile_seconds")},
        "images_seen": last["images_seen"],
        "best_images_seen": best["images_seen"],
        "images_per_second": last["images_per_second"],
    }


def _peak(attempt: RunningAttempt) -> int | None:
    """Return the peak over all attempts with kept reports; an attempt that finds training done measures none itself."""
    reported = (known.get("peak_memory_bytes") for known in (attempt.facts, *attempt.reports.values()))
    return max((peak for peak in reported if peak is not None), default=None)


def _last_words(crash: str) -> str:
    """Return the exception at the end of a traceback as one line; without an exception, the last line.

    The place in the user's own code that raised it, if any, comes first.
    """
    crash, place = split_place(crash)
    lines = crash.strip().splitlines() or ["the trial's process died"]
    exceptions = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*: ", line)]
    first = exceptions[-1] if exceptions else -1
    words = " ".join(" ".join(lines[first:]).split())
    return (f"{place}: {words}" if place else words)[:_LONGEST_REASON]
