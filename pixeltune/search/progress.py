"""The display while a search runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pixeltune.config import ImageSpec
from pixeltune.format import counted, duration, shortened, sparkline
from pixeltune.published.nearest import nearest_published_note
from pixeltune.results.manifest import scheduler_tree
from pixeltune.results.ranking import RANKED, bound_mark, value_of
from pixeltune.results.repeats import error_text, first_trial, trial_text
from pixeltune.results.schema import Status
from pixeltune.results.search_status import (
    below_baseline,
    count_failures,
    eta_seconds,
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
_MOST_ENDED = 5
"""Trials that ended last, shown below those that run."""
_TITLES = ("trial", "images", "rung", "bits/dim", "curve", "speed", "left", "settings")
_GAP = 2
_LINE_COLUMNS = 100
"""The width of a line about a trial that ended; settings that do not fit are cut."""
_LONGEST_SILENCE = 50.0
"""Seconds after which a log without a live panel says the progress of running trials."""


class Progress(SearchCallback):
    """A display of trials done, running and pruned, the best so far, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state: SearchState | None = None
        self._form: ImageSpec | None = None
        self._display: LiveDisplay | None = None
        self._shown: set[str] = set()
        self._best_shown: str | None = None
        self._started = self._totals_at = 0.0
        self._concurrent = 1

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show what is waited for, with a spinner on a terminal."""
        if self._console.is_terminal:
            with self._console.status(f"{what} …"):
                yield
        else:
            self.say(f"{what} …")
            yield

    def begin(self, state: SearchState, resources: Resources, concurrent: int, form: ImageSpec) -> None:
        """Show the resources and the number of trials done before."""
        self._state, self._form, self._concurrent = state, form, concurrent
        self._started = self._totals_at = time.monotonic()
        self._shown = set(state.ended)
        self._best_shown = self._best_trial()
        gpus = f", {resources.gpus:g} GPU" if resources.gpus else ""
        workers = f"{resources.workers} workers of " if resources.workers > 1 else ""
        before = f"; {counted(len(state.ended), 'trial')} done before" if state.ended else ""
        self.say(
            f"{counted(concurrent, 'trial')} at a time, each {workers}{counted(resources.cpus, 'CPU')}{gpus}{before}"
        )
        if self._console.is_terminal:
            self._display = LiveDisplay(get_renderable=self._panel, console=self._console, refresh_per_second=2)
            self._display.start()

    def change(self) -> None:
        """Print a line for each trial that has ended since, and in a log the totals from time to time."""
        for row in [row for trial, row in self._search.ended.items() if trial not in self._shown]:
            self._shown.add(row["trial"])
            is_best = self._best_trial() == first_trial(row) != self._best_shown
            if is_best:
                self._best_shown = first_trial(row)
            self._print(self._line(row, is_best=is_best), "bold green" if is_best else "")
        is_due = time.monotonic() - self._totals_at > _LONGEST_SILENCE
        if self._display is None and self._search.running and is_due:
            self._print_totals()

    def say(self, text: str) -> None:
        """Print one line, above the live panel if there is one."""
        self._print(text)

    def end(self) -> None:
        """Close the live panel."""
        if self._state is not None:
            self.change()
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False, style=style or None)

    # --- Lines --------------------------------------------------------------------------------------------------------

    def _line(self, row: Row, *, is_best: bool) -> str:
        """Return a line of at most 100 columns about a trial that ended."""
        value = value_of(row, self._search.unit)
        number = "" if value is None else f"{bound_mark(row)}{value:.4f}"
        why = f"({row['reason']})" if row["reason"] and row["status"] != Status.PRUNED else ""
        why += "" if row["repeat_of"] is None else f" repeats {row['repeat_of']}"
        seconds = sum(row[name] or 0 for name in ("train_seconds", "eval_seconds", "compile_seconds"))
        done = f"{len(self._shown)}/{self._search.space.most_trials}"
        head = f"{row['trial']} {row['status']:<8} {number:>8} {row['images_seen'] or 0:>9,} images {seconds:6.1f} s"
        tail = "  best so far" if is_best else ""
        room = _LINE_COLUMNS - len(head) - len(done) - len(tail) - 4
        settings = shortened(f"{why} {self._settings(row)}".strip(), room)
        return f"{head}  {done}  {settings}{tail}"

    def _print_totals(self) -> None:
        """Print what runs, and the totals."""
        self._totals_at = time.monotonic()
        running = ", ".join(" ".join(filter(None, self._cells(attempt))) for attempt in self._running())
        self.say(f"Running: {running}  | {self._count()} | {self._best()} | {self._left()}")

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
        stopped = sum(row["status"] == Status.STOPPED for row in ended)
        bad = sum(row["status"] not in RANKED for row in ended)
        text = (
            f"{len(ended)}/{self._search.space.most_trials} done, {len(self._search.running)} running, {pruned} pruned"
        )
        text += f", {stopped} stopped" if stopped else ""
        return text + (f", {bad} without a result" if bad else "")

    def _best_trial(self) -> str | None:
        """Return the best trial of a search; a final compares means over seeds, at its end."""
        best = None if self._search.space.is_final else self._search.best()
        return None if best is None else str(best["trial"])

    def _best(self) -> str:
        if self._search.space.is_final:
            return "means over seeds at the end"
        best = self._search.best()
        if best is None:
            return "no number yet"
        value = best["valid_bits_per_dim"]
        below = below_baseline(value, self._search.baseline)
        error = error_text(best, "valid_bits_per_dim")
        return f"best {bound_mark(best)}{value:.4f}{error} bits/dim ({trial_text(best)}){below}{self._gap(best)}"

    def _gap(self, best: Row) -> str:
        if self._form is None:
            return ""
        form = self._form
        shape = {"image_channels": form.channels, "image_height": form.height, "image_width": form.width}
        return nearest_published_note(best | shape | {"levels": form.levels})

    def _left(self) -> str:
        """Return how much is left of each limit but the trials, and the time left at the measured speed."""
        budget, state = self._search.space.budget, self._search
        spent = {
            "trials": len(state.ended),
            "images": state.spent_images(),
            "gpu_hours": state.spent_gpu_hours(),
            "hours": (time.monotonic() - self._started) / 3600,
            "dollars": state.spent_dollars(),
            "patience": state.without_improvement() if budget.patience is not None else 0,
        }
        left = left_of({name: getattr(budget, name) for name in spent} | {"trials": state.space.most_trials}, spent)
        seconds = eta_seconds(
            state.rows(),
            {trial: attempt.in_order() for trial, attempt in state.running.items()},
            {trial: attempt.progress for trial, attempt in state.running.items() if attempt.progress is not None},
            left=left,
            concurrent=self._concurrent,
            scheduler=scheduler_tree(state.space.scheduler),
            now=datetime.now(UTC),
        )
        more = "".join(f", {words} left" for words in left_words({k: v for k, v in left.items() if k != "trials"}))
        return ("time left: not known yet" if seconds is None else f"about {duration(seconds)} left") + more

    def _failures(self) -> str:
        """Return why trials have no result, the commonest reason first; "" if all have one."""
        reasons = list(count_failures(self._search.ended.values()).items())
        return "\n".join(f"{count} × {reason}" for reason, count in reasons[:_MOST_REASONS])

    # --- The panel ----------------------------------------------------------------------------------------------------

    def _panel(self) -> Group:
        """Return the totals, once, and one table of the trials that run and those that ended last."""
        head = Table.grid(padding=(0, 2))  # a bar ends no line of its own
        bar = ProgressBar(total=self._search.space.most_trials, completed=len(self._search.ended), width=20)
        head.add_row(bar, self._count(), self._left())
        failures = self._failures()
        return Group(head, Text(self._best()), self._table(), *([Text(failures, style="yellow")] if failures else []))

    def _table(self) -> Table:
        """Return a table that fits the terminal: settings are cut first, then columns are left out, never numbers."""
        best = self._best_trial()
        rows: list[tuple[str, ...]] = [_TITLES]
        styles = ["bold"]
        for attempt in self._running():
            rows.append((*self._cells(attempt, curve=True), self._settings(attempt.plan.config.flat())))
            styles.append("bold green" if attempt.plan.trial == best else "")
        for row in [*self._search.ended.values()][: -_MOST_ENDED - 1 : -1]:
            value = value_of(row, self._search.unit)
            number = "–" if value is None else f"{bound_mark(row)}{value:.4f}"
            cells = (str(row["trial"]), f"{row['images_seen'] or 0:,}", "", number, "", str(row["status"]), "")
            rows.append((*cells, self._settings(row)))
            styles.append("bold green" if row["trial"] == best else "dim")
        widths = {title: max(len(row[column]) for row in rows) for column, title in enumerate(_TITLES)}
        room = self._console.width - _GAP * (len(widths) - 1) - sum(widths.values()) + widths["settings"]
        widths["settings"] = min(widths["settings"], max(room, 0))
        for title in ("settings", "curve", "rung", "left"):
            if widths[title] < len(title) or room < 0:
                room += widths.pop(title) * (title != "settings") + _GAP
        table = Table.grid(padding=(0, _GAP, 0, 0))
        for title, width in widths.items():
            is_text = title in ("trial", "curve", "settings")
            table.add_column(justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis", width=width)
        for row_cells, style in zip(rows, styles, strict=True):
            shown = [cell for cell, title in zip(row_cells, _TITLES, strict=True) if title in widths]
            table.add_row(*shown, style=style)
        return table

    def _cells(self, attempt: RunningAttempt, *, curve: bool = False) -> tuple[str, ...]:
        """Return what is known of a running trial: name, images, rung, number, curve, speed, time left."""
        objective, end = self._search.objective, attempt.plan.config.train.end
        reports = attempt.in_order()
        newest = attempt.progress or (reports[-1] if reports else None)
        if newest is None:
            return (
                attempt.plan.trial,
                f"starting for {duration(_age(attempt))}",
                "",
                "",
                *([""] if curve else []),
                "",
                "",
            )
        rung = rung_passed(self._rungs, newest["images_seen"])
        valid = reports[-1][objective] if reports else None
        train = newest["train_bits_per_dim"]
        speed = newest["images_per_second"]
        is_known = valid is not None or train is not None
        number = f"{bound_mark(attempt.facts)}{valid:.4f}" if valid is not None else f"train {train:.4f}"
        return (
            attempt.plan.trial,
            f"{newest['images_seen']:,} / {end:,}" + ("" if curve else " images"),
            "" if rung is None else f"{rung:,}" if curve else f"rung {rung:,}",
            number if is_known else "",
            *([sparkline([report[objective] for report in reports])] if curve else []),
            f"{speed:,.0f} images/s{_silence(attempt)}" if speed else "",
            f"{duration((end - newest['images_seen']) / speed)}{'' if curve else ' to its end'}" if speed else "",
        )


def _age(attempt: RunningAttempt) -> float:
    return (datetime.now(UTC) - attempt.started_at).total_seconds()


def _silence(attempt: RunningAttempt) -> str:
    heard_at = attempt.progress["reported_at"] if attempt.progress else None
    reported_at = [report["reported_at"] for report in attempt.new_reports]
    silence = silence_of(attempt.started_at, reported_at, datetime.now(UTC), heard_at=heard_at)
    return f", no report for {duration(silence.seconds)}" if silence.is_late else ""


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
