"""The driver's book of a search: what was planned, what runs, how it ended. Every change is in the store at once.

Ray-free: a search drives it through Tune's hooks, `pixeltune train` directly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pixeltune.config import TrialConfig
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.search.trial import Message, TrialTask
from pixeltune.space import Resources, SearchSpace

Row = dict[str, Any]

UNDECIDED = (Status.RUNNING, Status.INTERRUPTED)
"""The last word on a trial that goes on when the search does."""


@dataclass(frozen=True)
class Plan:
    """One attempt at a trial. suggestion: the varied keys with their values."""

    number: int
    attempt: int
    suggestion: dict[str, Any]
    config: TrialConfig

    @property
    def trial(self) -> str:
        """The trial's id: its number, in five digits."""
        return f"{self.number:05d}"


@dataclass
class Live:
    """A trial attempt that runs. reports: by images seen, those of earlier attempts included."""

    plan: Plan
    started_at: datetime
    facts: Row = field(default_factory=dict)
    reports: dict[int, Row] = field(default_factory=dict)
    new_reports: list[Row] = field(default_factory=list)
    end: tuple[Status, str | None] | None = None
    traceback: str | None = None


class Ledger:
    """Rows by trial, ended and live. `judge` decides at each report whether a trial goes on."""

    def __init__(
        self,
        space: SearchSpace,
        store: SearchStore,
        *,
        resources: Resources,
        baseline: float | None = None,
        judge: Callable[[str, Mapping[int, Row]], str | None] | None = None,
    ) -> None:
        self.space = space
        self.store = store
        self.resources = resources
        self.baseline = baseline
        self.ended: dict[str, Row] = {}
        self.live: dict[str, Live] = {}
        self._judge = judge or (lambda _trial, _reports: None)
        self._resumable: list[Row] = []
        self._next_number = 0
        for row in store.trials():
            self._next_number = max(self._next_number, row["number"] + 1)
            if row["status"] in UNDECIDED:
                self._resumable.append(row)
            else:
                self.ended[row["trial"]] = row

    @property
    def objective(self) -> str:
        """The EpochReport field by which a trial's best report is chosen."""
        first = self.space.objectives[0]
        return first if first in ("valid_bits_per_dim", "valid_nats") else "valid_bits_per_dim"

    def plans_to_resume(self) -> list[Plan]:
        """The trials that an earlier launch left without an end, as their next attempt."""
        return [self._next_attempt(row) for row in self._resumable]

    def plan(self, suggestion: Mapping[str, Any]) -> Plan:
        """A new trial."""
        plan = Plan(self._next_number, 1, dict(suggestion), self.space.configure(suggestion))
        self._next_number += 1
        return plan

    def task(self, plan: Plan) -> TrialTask:
        """What the trial's process is told."""
        return TrialTask(
            trial=plan.trial,
            config=json.loads(plan.config.model_dump_json()),
            checkpoint=self.store.checkpoint(plan.trial),
            objective=self.objective,
            cpus=self.resources.cpus,
        )

    def start(self, plan: Plan) -> None:
        """The attempt runs: its row appears with status `running`."""
        earlier = {row["images_seen"]: row for row in self.store.curve(plan.trial)} if plan.attempt > 1 else {}
        live = Live(plan, started_at=datetime.now(UTC), reports=earlier)
        self.live[plan.trial] = live
        self.store.write_trial(self._row(live, Status.RUNNING, None))

    def receive(self, trial: str, message: Message) -> str | None:
        """Take in a message of `run_trial`; the reason to stop the trial, if there is one."""
        live = self.live[trial]
        live.facts |= message.get("facts") or {}
        if message.get("end"):
            live.end = Status(message["end"]), message.get("reason")
        report = message.get("report")
        if not report:
            return None
        live.reports[report["images_seen"]] = report
        live.new_reports.append(dict(report) | {"reported_at": datetime.now(UTC)})
        self.store.write_curve(trial, live.plan.attempt, live.new_reports)
        reason = self._judge(trial, live.reports)
        if reason is not None:
            live.end = Status.PRUNED, reason
        return reason

    def finish(self, trial: str, *, crash: str | None = None) -> Row:
        """The attempt is over: as it said itself, or crashed, or else was interrupted. Its row is final."""
        live = self.live.pop(trial)
        if live.end is not None:
            status, reason = live.end
        elif crash is not None:
            status, reason = Status.FAILED, (crash.strip().splitlines() or ["the worker died"])[-1]
            live.traceback = crash
        else:
            status, reason = Status.INTERRUPTED, "stopped before its end"
        row = self._row(live, status, reason)
        self.store.write_trial(row)
        if status not in UNDECIDED:
            self.ended[trial] = row
        return row

    def retry(self, trial: str, crash: str) -> Plan:
        """The attempt crashed and another follows: both stand in the store."""
        live = self.live[trial]
        self.finish(trial, crash=crash)
        self.ended.pop(trial, None)
        plan = Plan(live.plan.number, live.plan.attempt + 1, live.plan.suggestion, live.plan.config)
        self.start(plan)
        return plan

    def spent_images(self) -> int:
        """Training images seen by all trials."""
        return sum(row["images_seen"] or 0 for row in self._all_rows())

    def spent_gpu_hours(self) -> float:
        """GPU-hours of all trials."""
        return sum(row["gpu_seconds"] or 0.0 for row in self._all_rows()) / 3600

    def best(self) -> Row | None:
        """The row with the lowest first objective among ended and live trials."""
        rows = [row for row in self._all_rows() if row[self.objective] is not None and _ranks(row)]
        return min(rows, key=lambda row: row[self.objective], default=None)

    def values(self, row: Row) -> list[float] | None:
        """The objectives of a row, or None where one is missing."""
        values = [row[name] for name in self.space.objectives]
        return None if any(value is None for value in values) else [float(value) for value in values]

    def _all_rows(self) -> list[Row]:
        running = [self._row(live, Status.RUNNING, None) for live in self.live.values()]
        return [*self.ended.values(), *running]

    def _next_attempt(self, row: Row) -> Plan:
        suggestion = {key: row[key] for key in self.space.vary if row.get(key) is not None}
        return Plan(row["number"], row["attempt"] + 1, suggestion, self.space.configure(suggestion))

    def _row(self, live: Live, status: Status, reason: str | None) -> Row:
        plan = live.plan
        row: Row = plan.config.flat() | live.facts
        row |= {
            "search": self.store.search,
            "trial": plan.trial,
            "attempt": plan.attempt,
            "number": plan.number,
            "config_key": live.facts.get("config_key", plan.config.key()),
            "status": str(status),
            "reason": reason,
            "traceback": live.traceback,
            "started_at": live.started_at,
            "finished_at": None if status is Status.RUNNING else datetime.now(UTC),
            "baseline_bits_per_dim": self.baseline,
            "workers": self.resources.workers,
            "cpus_per_worker": self.resources.cpus,
            "gpus_per_worker": self.resources.gpus,
        }
        return dict.fromkeys(_METRICS) | row | self._metrics(live)

    def _metrics(self, live: Live) -> Row:
        """The best report's numbers; images and seconds are those of the whole trial."""
        if not live.reports:
            return {}
        best = min(live.reports.values(), key=lambda report: report[self.objective])
        last = live.reports[max(live.reports)]
        seconds = {name: last[name] for name in ("train_seconds", "eval_seconds", "compile_seconds")}
        busy = sum(seconds.values()) + (live.facts.get("audit_seconds") or 0.0)
        return {
            **{name: best[name] for name in _BEST_REPORT},
            **seconds,
            "images_seen": last["images_seen"],
            "best_images_seen": best["images_seen"],
            "images_per_second": last["images_per_second"],
            "gpu_seconds": busy * self.resources.gpus * self.resources.workers,
        }


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
_METRICS = (
    *_BEST_REPORT,
    "train_seconds",
    "eval_seconds",
    "compile_seconds",
    "images_seen",
    "images_per_second",
    "best_images_seen",
    "gpu_seconds",
)


def _ranks(row: Row) -> bool:
    return row["status"] in (Status.FINISHED, Status.PRUNED, Status.RUNNING)
