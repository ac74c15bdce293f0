"""The driver's state of a search: what was planned, what runs, how it ended. Every change is stored at once.

Ray-free: a search updates it through Tune's hooks, `pixeltune train` directly.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

from pixeltune.errors import StoreError
from pixeltune.results.budget_aims import first_at_target, trials_without_improvement
from pixeltune.results.own_keys import names_of_own
from pixeltune.results.ranking import RANKED, best_row
from pixeltune.results.schema import Status
from pixeltune.results.search_status import common_failure
from pixeltune.results.stop_requests import remove_stop_request
from pixeltune.results.store import SearchStore, without_continuations
from pixeltune.search.attempt import (
    UNDECIDED,
    Row,
    RunningAttempt,
    TrialPlan,
    needs_exclusive_retry,
    objective_of,
    to_row,
)
from pixeltune.search.messages import STOPPED, Message
from pixeltune.search.pruners import NopPruner, Pruner, Trace
from pixeltune.search.repeat_planning import REPEAT, Repeat
from pixeltune.search.space_history import SpaceHistory
from pixeltune.space import Resources, SearchSpace
from pixeltune.space.metrics import KNOWN_EARLY, broken

Curve = dict[int, float]
"""The objective of one trial by training images seen; NaN where nothing is validated."""

NODE_DIED = "its node died or could not be reached"
"""The reason of an attempt whose node was lost; a trial's first ones are not held against it."""
MOST_NODE_DEATHS = 3
"""Node losses of one trial, without a notice, after which it counts as their cause (it may use up a host's memory)."""

EQUAL_FAILURES = 3
"""Trials that fail alike, without a result of any other, after which a search ends."""
WITHOUT_RESULT = (Status.FAILED, Status.REJECTED, Status.OOM)
"""Statuses of trials to which a mended search may give a result."""
STOPPED_BY_HAND = "stopped by hand"
"""The reason of a trial that `pixeltune stop` ended."""
_MEASURES = (*RANKED, *UNDECIDED)
"""Statuses of trials that others are compared with; the rest have no number at their end."""


class SearchState:
    """The rows of ended trials, the running attempts, and the curves of both, by trial.

    `pruner` decides at each report whether a trial continues.

    A trial that breaks one of the space's constraints for good is stopped as soon as that is known, and so is one whose
    images are others than those of the search. data_checksum: of these; if it is not given, the first trial's count.
    retries: the statuses of trials that this launch tries again, in addition to those that were interrupted; a final
    always tries those again that crashed, because its trials are fixed. If an earlier launch ended because all trials
    failed for the same reason, they are tried again too: it was a fault of the search, which may be mended by now.

    Trials of earlier versions of the space that the newest one lacks are `outside`: they are not run again, and the
    sampler does not get them, but they count for the budget, and others are compared with them. history: the versions.

    Attempts of `pixeltune continue` are none of the search: the numbers of its own lengths count. continued: their
    trials.

    A launch may die after a report is in the store and before the row says that the trial stopped there. The decision
    is then repeated from what was known at that report; `write_lost_decisions` stores it.
    """

    def __init__(
        self,
        space: SearchSpace,
        store: SearchStore,
        *,
        baseline: float | None = None,
        pruner: Pruner | None = None,
        retries: Collection[Status] = (),
        data_checksum: str | None = None,
        history: SpaceHistory | None = None,
    ) -> None:
        self.space = space
        self.history = history or SpaceHistory(space)
        self.outside: set[str] = set()
        self.continued: set[str] = set()
        self.store = store
        self.baseline = baseline
        self.ended: dict[str, Row] = {}
        self.running: dict[str, RunningAttempt] = {}
        self.curves: dict[str, Curve] = {}
        self._data_checksum = data_checksum
        self._lost_decisions: list[str] = []
        self._node_deaths: Counter[str] = Counter()
        self._pruner = pruner or NopPruner()
        self._retries = {*retries, *([Status.FAILED] if space.is_final else [])}
        self._unfinished: dict[str, tuple[Row, RunningAttempt]] = {}
        self._numbers: set[int] = set()
        self._curves_without_row: set[str] = set()
        self._to_stop: frozenset[str] = frozenset()
        self._read_store()

    def _read_store(self) -> None:
        everything = self.store.attempts()
        self.continued = {row["trial"] for row in everything if row["continues_attempt"] is not None}
        own_attempts, own_reports = without_continuations(everything, self.store.curves())
        reports: dict[str, dict[int, Row]] = {}
        for report in own_reports:
            reports.setdefault(report["trial"], {})[report["images_seen"]] = report
        attempts = [self._with_varied(row) for row in own_attempts]
        self._curves_without_row = reports.keys() - {row["trial"] for row in attempts}
        self._node_deaths.update(row["trial"] for row in attempts if row["reason"] == NODE_DIED)
        by_attempt = {(row["trial"], row["attempt"]): row for row in attempts}
        latest = {row["trial"]: row for row in attempts}
        self.outside = {trial for trial, row in latest.items() if not self.history.has(row)}
        stopped = self._decide_again(latest, reports)
        if self.ends_by_failure(latest.values()):
            self._retries |= {Status.FAILED, Status.REJECTED}
        for trial, row in latest.items():
            self._numbers |= {row["number"], *([] if row["repeat_of"] is None else [int(row["repeat_of"])])}
            self._data_checksum = self._data_checksum or row["data_checksum"]
            self.curves[trial] = self._curve(reports.get(trial, {}).values())
            self._remember(row, reports.get(trial, {}))
            if trial in self.outside:
                if row["status"] not in UNDECIDED:
                    self.ended[trial] = row
            elif row["status"] in (*UNDECIDED, *self._retries) or needs_exclusive_retry(row):
                before = by_attempt.get((trial, row["attempt"] - 1), {})
                left = self._attempt_of(row, reports.get(trial, {}), before)
                if trial in stopped:
                    self.ended[trial] = self._row(left, Status.PRUNED, stopped[trial])
                else:
                    self._unfinished[trial] = row, left
            else:
                self.ended[trial] = row
        self._lost_decisions = list(stopped)

    def _decide_again(self, latest: Mapping[str, Row], reports: Mapping[str, dict[int, Row]]) -> dict[str, str]:
        """Return, by trial, why trials stop whose launch died at their last report; the pruner's state changes."""
        reasons: dict[str, str] = {}
        for trial, row in latest.items():
            own = reports.get(trial, {})
            last = own[max(own)] if own else None
            if trial in self.outside or last is None or row["status"] != Status.RUNNING:
                continue
            if row["repeat_of"] is not None:
                continue
            if last["attempt"] != row["attempt"]:
                continue
            if last["reported_at"] is None or max(own) >= (row["train.stop_after"] or row["train.images"]):
                continue
            for other in latest.values():
                if other is not row:
                    self._remember_as_of(last["reported_at"], other, reports.get(other["trial"], {}))
            reason = self._pruner.should_prune(trial, self._trace(row, own))
            if reason is not None:
                reasons[trial] = reason
        return reasons

    def _remember_as_of(self, time: datetime, row: Row, reports: Mapping[int, Row]) -> None:
        """Give the pruner a trial as it was at that time: it counted while it ran, regardless of its later end."""
        had_ended = row["finished_at"] is not None and row["finished_at"] <= time
        known = {images: report for images, report in reports.items() if (report["reported_at"] or time) <= time}
        self._remember(row if had_ended else row | {"status": Status.RUNNING}, known)

    def write_lost_decisions(self) -> None:
        """Write the rows of trials that an earlier launch had stopped without writing it."""
        for trial in self._lost_decisions:
            self.store.write_trial(self.ended[trial])
        self._lost_decisions = []

    @property
    def objective(self) -> str:
        """Return the EpochReport field by which a trial's best report is chosen."""
        return objective_of(self.space)

    @property
    def next_number(self) -> int:
        """Return the first number that no trial has.

        Trials begin in any order, so a killed launch may have left a gap before others that began.
        """
        return next(number for number in count() if number not in self._numbers)

    def ends_by_failure(self, rows: Iterable[Row]) -> bool:
        """Return whether a search with these latest rows ends because its trials all fail for the same reason."""
        ended = [row for row in rows if row["status"] not in UNDECIDED]
        return len(ended) >= min(EQUAL_FAILURES, self.space.most_trials) and bool(common_failure(ended))

    def plans_to_resume(self) -> list[TrialPlan]:
        """Return the next attempts of the trials that an earlier launch left unfinished."""
        return [
            attempt.plan.next_attempt() for row, attempt in self._unfinished.values() if not needs_exclusive_retry(row)
        ]

    def plans_to_retry_exclusively(self) -> list[TrialPlan]:
        """Return the next attempts of the trials that ran out of memory on a GPU that they shared."""
        return [attempt.plan.next_attempt() for row, attempt in self._unfinished.values() if needs_exclusive_retry(row)]

    def unfinished_row(self, trial: str) -> Row | None:
        """Return the row of a trial's newest attempt if it ended and another one is to come; None for other trials."""
        row, _attempt = self._unfinished.get(trial, (None, None))
        return row

    def pending(self) -> list[TrialPlan]:
        """Return the unfinished trials: running, to be resumed, or to be tried alone."""
        return [
            attempt.plan
            for attempt in [*self.running.values(), *(attempt for _row, attempt in self._unfinished.values())]
        ]

    def plan(self, suggestion: Mapping[str, Any], proposed_by: str | None = None) -> TrialPlan:
        """Return the first attempt of a new trial. proposed_by: what chose its configuration."""
        config, version = self.space.configure(suggestion), self.history.version
        plan = TrialPlan(self.next_number, 1, dict(suggestion), config, proposed_by, version)
        self._numbers.add(plan.number)
        return plan

    def plan_repeat(self, repeat: Repeat) -> TrialPlan:
        """Return the first attempt of a trial that trains a configuration with another seed."""
        plan = replace(self.plan(repeat.suggestion, REPEAT), repeat_of=repeat.repeat_of)
        return replace(plan, config=plan.config.override({"seed": repeat.seed}))

    def start(self, plan: TrialPlan, resources: Resources) -> None:
        """Record that an attempt starts with these resources: its row appears with status `running`."""
        if plan.trial in self._curves_without_row:  # its row was damaged, and its number is used again
            self.store.clear_curve(plan.trial)
            self._curves_without_row.remove(plan.trial)
        row, earlier = self._unfinished.pop(plan.trial, (None, None))
        attempt = RunningAttempt.begin(plan, resources, earlier)
        if row is not None and earlier is not None:
            self._mark_interrupted(row, earlier)
        self.running[plan.trial] = attempt
        self.store.write_trial(self._row(attempt, Status.RUNNING, None))

    def receive(self, trial: str, message: Message) -> str | None:
        """Process a message of `run_trial`; return the reason to stop the trial, if any."""
        attempt = self.running[trial]
        if "progress" in message:
            attempt.advance(message["progress"])
            return self._stop_as_requested(attempt)
        if "facts" in message:
            attempt.learn(message["facts"])
        if (stranger := self._other_images(attempt) or self._other_code(attempt)) is not None:
            attempt.conclude(Status.FAILED, stranger)
            return stranger
        if "end" in message:
            attempt.conclude(Status(message["end"]), message["reason"])
        new: list[Row] = []
        if "resumed" in message:
            new = message["resumed"]
            self._resume_from(attempt, new)
            self.store.write_trial(self._row(attempt, Status.RUNNING, None))
        elif "report" in message:
            new = [message["report"]]
        for report in new:
            if report["images_seen"] in attempt.reports:
                continue
            reason = self._add_report(attempt, report)
            if reason is not None:
                attempt.conclude(Status.PRUNED, reason)
                return reason
        if attempt.end is None and (breach := self._broken_constraint(attempt)):
            attempt.conclude(Status.PRUNED, f"out of bounds: {breach}")
            return breach
        return self._stop_as_requested(attempt)

    def request_stop(self, trials: Collection[str]) -> None:
        """Stop these trials at their next messages, in place of those that were named before."""
        self._to_stop = frozenset(trials)

    def _stop_as_requested(self, attempt: RunningAttempt) -> str | None:
        """Return the reason to stop a trial that is to stop and has not come to an end; None for others."""
        if attempt.plan.trial not in self._to_stop or attempt.end is not None:
            return None
        attempt.conclude(Status.STOPPED, STOPPED_BY_HAND)
        return STOPPED_BY_HAND

    def write_progress(self) -> None:
        """Write where the running trials are between two reports, for other shells.

        An error of the storage does not end the search: no result depends on this file.
        """
        progress = {
            trial: attempt.progress | {"attempt": attempt.plan.attempt}
            for trial, attempt in self.running.items()
            if attempt.progress is not None
        }
        with contextlib.suppress(StoreError, OSError):
            self.store.write_progress(progress)

    def finish(self, trial: str, *, crash: str | None = None, interruption: str = STOPPED) -> Row:
        """End an attempt as it reported, else as crashed, else as interrupted. Its row is final."""
        attempt = self.running.pop(trial)
        status, reason = attempt.finish(crash, interruption)
        self._node_deaths[trial] += reason == NODE_DIED
        row = self._row(attempt, status, reason)
        self.store.write_trial(row)
        self._remember(row, attempt.reports)
        if needs_exclusive_retry(row) or status in UNDECIDED:
            self._unfinished[trial] = row, attempt
        else:
            self.ended[trial] = row
            if trial in self._to_stop:  # a request that stays is removed by the next launch
                with contextlib.suppress(StoreError, OSError):
                    remove_stop_request(self.store.folder, trial)
        return row

    def retry(self, trial: str, crash: str | None, interruption: str = "") -> TrialPlan:
        """End an attempt that crashed or was interrupted, and start another; both have a row."""
        attempt = self.running[trial]
        row = self.finish(trial, crash=crash, interruption=interruption)
        self.ended.pop(trial, None)
        self._unfinished[trial] = row, attempt
        plan = attempt.plan.next_attempt()
        self.start(plan, attempt.resources)
        return plan

    def may_blame_node(self, trial: str) -> bool:
        """Return whether the loss of a node is not the fault of the trial that ran there."""
        return self._node_deaths[trial] < MOST_NODE_DEATHS

    def spent_images(self) -> int:
        """Return the number of training images seen by all trials."""
        return sum(max(curve, default=0) for curve in self.curves.values())

    def spent_gpu_hours(self) -> float:
        """Return the GPU-hours of all trials."""
        return sum(row["gpu_seconds"] or 0.0 for row in self._rows_with_unfinished()) / 3600

    def spent_dollars(self) -> float:
        """Return the cost of all trials; what ran without a known price is left out."""
        return sum(row["dollars"] or 0.0 for row in self._rows_with_unfinished())

    def trials_without_price(self) -> list[str]:
        """Return the ended and unfinished trials whose cost is not known."""
        return sorted(row["trial"] for row in self._rows_with_unfinished() if row["dollars"] is None)

    def _rows_with_unfinished(self) -> list[Row]:
        left = [self._row(attempt, Status.INTERRUPTED, None) for _row, attempt in self._unfinished.values()]
        return [*self.rows(), *left]

    def at_target(self) -> Row | None:
        """Return the first trial to end that reached the budget's target; None without one."""
        space = self.space
        if space.budget.target is None:
            return None
        return first_at_target(self.ended.values(), space.objectives[0], space.budget.target, space.constraints)

    def without_improvement(self) -> int:
        """Return how many finished trials in a row did not improve the first objective."""
        space = self.space
        return trials_without_improvement(
            self.ended.values(), space.objectives[0], space.budget.min_delta, space.constraints
        )

    def best(self) -> Row | None:
        """Return the row with the lowest number of record among ended and running trials that meet the constraints.

        With repeats, rows are merged and those with all of their seeds come first.
        Rows whose bits a real code does not confirm are left out.
        """
        return best_row(self.rows(), self.unit, self.space.constraints)

    @property
    def unit(self) -> str:
        """Return the metric of the numbers of record, `bits_per_dim` or `nats`; of the test set in a final."""
        return self.objective.removeprefix("valid_")

    def _other_images(self, attempt: RunningAttempt) -> str | None:
        """Return why a trial cannot count because of its images; None if they are those of the search, or not known."""
        checksum = attempt.facts.get("data_checksum")
        self._data_checksum = self._data_checksum or checksum
        if checksum in (None, self._data_checksum):
            return None
        return (
            f"its images have checksum {checksum}, those of the search {self._data_checksum}; all machines must have "
            "the same data"
        )

    def _other_code(self, attempt: RunningAttempt) -> str | None:
        """Return why a trial cannot count because of the code of its classes, which are the user's own."""
        if "own_code" not in attempt.facts:
            return None
        here, there = attempt.plan.config.own_code(), attempt.facts["own_code"]
        if None in (here, there) or here == there:
            return None
        return (
            f"the code of {names_of_own(attempt.facts)} has fingerprint {there} where it ran, and {here} where the "
            "search was launched; all machines must have the same code"
        )

    def _broken_constraint(self, attempt: RunningAttempt) -> str:
        """Return the constraint that a running trial has broken for good, or ""."""
        constraints = self.space.constraints
        return broken(constraints, self._row(attempt, Status.RUNNING, None), KNOWN_EARLY) if constraints else ""

    def _remember(self, row: Row, reports: Mapping[int, Row]) -> None:
        """Give the pruner a trial as it is now; a configuration counts once, so repeats are left out."""
        if row["repeat_of"] is not None:
            return
        is_measure = row["status"] in _MEASURES and not broken(self.space.constraints, row, KNOWN_EARLY)
        remember = self._pruner.remember_finished if row["status"] == Status.FINISHED else self._pruner.remember
        remember(row["trial"], self._trace(row, reports) if is_measure else {})

    def _trace(self, facts: Row, reports: Mapping[int, Row]) -> Trace:
        """Return the objectives at each report; those that a report lacks were known when the model was built."""
        names = [self.objective, *self.space.objectives[1:]]
        return {
            images: tuple(report[name] if name in report else facts.get(name) for name in names)
            for images, report in reports.items()
        }

    def rows(self) -> list[Row]:
        """Return the latest row of each trial that ended or runs."""
        return [*self.ended.values(), *(self._row(attempt, Status.RUNNING, None) for attempt in self.running.values())]

    def _curve(self, reports: Iterable[Row]) -> Curve:
        return {report["images_seen"]: self._value(report) for report in reports}

    def _value(self, report: Row) -> float:
        value: float | None = report[self.objective]
        return math.nan if value is None else value

    def _attempt_of(self, row: Row, reports: dict[int, Row], before: Row) -> RunningAttempt:
        """Return an attempt that an earlier launch left, as it was then; the row's columns take the place of facts.

        before: the row of the attempt before it; empty if it is the first.
        """
        suggestion = self.space.suggestion_of(row)
        config = self.space.configure(suggestion)
        if row["repeat_of"] is not None:
            config = config.override({"seed": row["seed"]})
        origin = row.get("proposed_by"), row.get("space_version"), row["repeat_of"]
        plan = TrialPlan(row["number"], row["attempt"], suggestion, config, *origin)
        had = Resources(
            row["workers"] or 1, row["cpus_per_worker"] or 1, row["gpus_per_worker"] or 0.0, row["dollars_per_hour"]
        )
        reported = [report["reported_at"] for report in reports.values() if report["attempt"] == row["attempt"]]
        ended_at = row["finished_at"] or max(reported, default=row["started_at"])
        return RunningAttempt(
            plan,
            had,
            row["started_at"],
            facts=row,
            reports=reports,
            ended_at=ended_at,
            gpu_seconds_before=before.get("gpu_seconds") or 0.0,
            dollars_before=before.get("dollars"),
        )

    def _mark_interrupted(self, row: Row, attempt: RunningAttempt) -> None:
        """Set the row of an attempt whose launch died from `running` to `interrupted`."""
        if row["status"] == Status.RUNNING:
            self.store.write_trial(self._row(attempt, Status.INTERRUPTED, "its launch died"))

    def _resume_from(self, attempt: RunningAttempt, reports: list[Row]) -> None:
        """Drop later reports of earlier attempts: this attempt begins after these reports and makes the rest again."""
        kept = {report["images_seen"] for report in reports}
        stale = {report["attempt"] for images, report in attempt.reports.items() if images not in kept}
        for number in stale:
            rows = [row for images, row in attempt.reports.items() if images in kept and row["attempt"] == number]
            self.store.write_curve(attempt.plan.trial, number, rows)
        attempt.keep_reports(kept)
        self.curves[attempt.plan.trial] = self._curve(attempt.reports.values())
        self._remember(self._row(attempt, Status.RUNNING, None), attempt.reports)

    def _add_report(self, attempt: RunningAttempt, report: Row) -> str | None:
        trial, images = attempt.plan.trial, report["images_seen"]
        attempt.add(report)
        self.store.write_curve(trial, attempt.plan.attempt, attempt.new_reports)
        curve = self.curves.setdefault(trial, {})
        curve[images] = self._value(report)
        if images >= attempt.plan.config.train.end or attempt.plan.repeat_of is not None:
            return None  # nothing is left to stop, or all of it is needed for the mean
        return self._pruner.should_prune(trial, self._trace(attempt.facts, attempt.reports))

    def _row(self, attempt: RunningAttempt, status: Status, reason: str | None) -> Row:
        origin = self.space.origin(attempt.plan.number)
        whose = {"search": self.store.search, "baseline_bits_per_dim": self.baseline, **origin}
        whose |= {"repeats": self.space.repeats} if self.space.repeats > 1 else {}
        return self._with_varied(to_row(attempt, status, reason, whose, self.objective))

    def _with_varied(self, row: Row) -> Row:
        """Return a row with every varied key, also those that only a class of the user's own has, which it is not."""
        return dict.fromkeys(self.history.keys) | row
