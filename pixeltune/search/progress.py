"""The display while a search runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pixeltune.config import ImageSpec
from pixeltune.format import duration
from pixeltune.published.nearest import nearest_published_note
from pixeltune.results.ranking import bound_mark, value_of
from pixeltune.results.schema import Status
from pixeltune.results.search_status import (
    below_baseline,
    count_failures,
    eta_of,
    left_of,
    left_words,
    rung_passed,
    silence_of,
)
from pixeltune.search.attempt import Row, RunningAttempt
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.state import SearchState
from pixeltune.space import Asha, Pareto, Resources
from pixeltune.space.keys import short_name

_MOST_REASONS = 3
_LONGEST_SILENCE = 60.0
"""Seconds after which a log without a live panel says the progress of running trials."""


class Progress(SearchCallback):
    """A display of trials done, running and pruned, the best so far, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state: SearchState | None = None
        self._form: ImageSpec | None = None
        self._display: LiveDisplay | None = None
        self._said: set[str] = set()
        self._started = self._last_line = 0.0
        self._before: dict[str, float] = {}

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """Show the resources and the number of trials done before."""
        self._state, self._form, self._started = state, form, time.monotonic()
        self._before = _spent(state)
        self._said = set(state.ended)
        gpus = f", {resources.gpus:g} GPU" if resources.gpus else ""
        workers = f"{resources.workers} workers of " if resources.workers > 1 else ""
        self.say(
            f"{concurrent} trials at a time, each {workers}{resources.cpus} CPU{gpus}"
            + (f"; {len(state.ended)} trials done before" if state.ended else "")
        )
        if self._console.is_terminal:
            self._display = LiveDisplay(get_renderable=self._panel, console=self._console, refresh_per_second=2)
            self._display.start()

    def change(self) -> None:
        """Print a line for each trial that has ended since."""
        for trial, row in list(self._search.ended.items()):
            if trial not in self._said:
                self._said.add(trial)
                self.say(self._line(row))
        is_due = time.monotonic() - self._last_line > _LONGEST_SILENCE
        if is_due and self._display is None and self._search.running:
            running = ", ".join(
                " ".join(filter(None, _cells(attempt, self._search.objective, self._rungs)))
                for attempt in self._running()
            )
            self.say(f"Running: {running}  | {self._count()} | {self._best()} | {self._left()}")

    def say(self, text: str) -> None:
        """Print one line, above the live panel if there is one."""
        self._last_line = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Close the live panel."""
        if self._state is not None:
            self.change()
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _line(self, row: Row) -> str:
        value = value_of(row, self._search.unit)
        number = "" if value is None else f" {bound_mark(row)}{value:.4f}"
        why = f" ({row['reason']})" if row["reason"] and row["status"] != Status.PRUNED else ""
        seconds = sum(row[name] or 0 for name in ("train_seconds", "eval_seconds", "compile_seconds"))
        return (
            f"{row['trial']} {row['status']:<8}{number}  {row['images_seen'] or 0:>9,} images {seconds:6.1f} s  "
            f"{self._settings(row)}{why}  | {self._count()} | {self._best()} | {self._left()}"
        )

    @property
    def _search(self) -> SearchState:
        assert self._state is not None
        return self._state

    @property
    def _rungs(self) -> Sequence[int]:
        scheduler = self._search.space.scheduler
        return scheduler.rungs if isinstance(scheduler, Asha | Pareto) else ()

    def _running(self) -> list[RunningAttempt]:
        return list(self._search.running.values())

    def _settings(self, row: Row) -> str:
        return " ".join(
            f"{short_name(key)}={_short(row[key])}" for key in self._search.space.shown if row.get(key) is not None
        )

    def _count(self) -> str:
        ended = self._search.ended.values()
        pruned = sum(row["status"] == Status.PRUNED for row in ended)
        bad = sum(row["status"] not in (Status.PRUNED, Status.FINISHED) for row in ended)
        text = (
            f"{len(ended)}/{self._search.space.most_trials} done, {len(self._search.running)} running, {pruned} pruned"
        )
        return text + (f", {bad} without a result" if bad else "")

    def _best(self) -> str:
        if self._search.space.is_final:
            return "means over seeds at the end"
        best = self._search.best()
        if best is None:
            return "no number yet"
        value = best["valid_bits_per_dim"]
        below = below_baseline(value, self._search.baseline)
        return f"best {bound_mark(best)}{value:.4f} bits/dim ({best['trial']}){below}{self._gap(best)}"

    def _gap(self, best: Row) -> str:
        if self._form is None:
            return ""
        form = self._form
        shape = {"image_channels": form.channels, "image_height": form.height, "image_width": form.width}
        return nearest_published_note(best | shape | {"levels": form.levels})

    def _left(self) -> str:
        """Return how much is left of the trials and of each other limit, and the time left at the pace so far."""
        budget, state = self._search.space.budget, self._search
        elapsed = time.monotonic() - self._started
        spent = {**_spent(state), "hours": elapsed / 3600}
        before = {**self._before, "hours": 0.0}
        limits = {name: getattr(budget, name) for name in spent} | {"trials": state.space.most_trials}
        left = left_of(limits, spent)
        seconds = eta_of(left, {name: spent[name] - before[name] for name in spent}, elapsed)
        more = "".join(f", {words} left" for words in left_words({k: v for k, v in left.items() if k != "trials"}))
        return ("time left: unknown" if seconds is None else f"about {duration(seconds)} left") + more

    def _failures(self) -> str:
        """Return why trials have no result, the commonest reason first; "" if all have one."""
        reasons = list(count_failures(self._search.ended.values()).items())
        return "\n".join(f"{count} × {reason}" for reason, count in reasons[:_MOST_REASONS])

    def _panel(self) -> Group:
        head = Table.grid(padding=(0, 2))  # a bar ends no line of its own
        bar = ProgressBar(total=self._search.space.most_trials, completed=len(self._search.ended), width=20)
        head.add_row(bar, self._count())
        table = Table.grid(padding=(0, 2))
        for attempt in self._running():
            table.add_row(*_cells(attempt, self._search.objective, self._rungs))
        failures = self._failures()
        return Group(
            head, Text(self._left()), Text(self._best()), table, *([Text(failures, style="yellow")] if failures else [])
        )


def _cells(attempt: RunningAttempt, objective: str, rungs: Sequence[int]) -> tuple[str, ...]:
    """Return the cells of a trial's row: trial, images, rung passed, objective, speed."""
    total = attempt.plan.config.train.end
    if not attempt.reports:
        return attempt.plan.trial, "starting", "", "", ""
    last = attempt.reports[max(attempt.reports)]
    rung = rung_passed(rungs, last["images_seen"])
    return (
        attempt.plan.trial,
        f"{last['images_seen']:,} / {total:,} images",
        "" if rung is None else f"rung {rung:,}",
        (
            f"{bound_mark(attempt.facts)}{last[objective]:.4f}"
            if last[objective] is not None
            else f"train {last['train_bits_per_dim']:.4f}"
        ),
        f"{last['images_per_second']:,.0f} images/s" + _silence(attempt),
    )


def _silence(attempt: RunningAttempt) -> str:
    silence = silence_of(
        attempt.started_at, [report["reported_at"] for report in attempt.new_reports], datetime.now(UTC)
    )
    return f", no report for {duration(silence.seconds)}" if silence.is_late else ""


def _spent(state: SearchState) -> dict[str, float]:
    """Return what a search has spent of its limits, except the time."""
    return {
        "trials": len(state.ended),
        "images": state.spent_images(),
        "gpu_hours": state.spent_gpu_hours(),
    }


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
