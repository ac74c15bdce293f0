"""What the user sees while a search runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pixeltune.config import ImageForm
from pixeltune.results.judge import best_published, identity_of, value_of
from pixeltune.results.schema import Status
from pixeltune.search.ledger import Ledger, Live, Row
from pixeltune.search.run import Watcher
from pixeltune.space import Resources

_LONGEST_SILENCE = 60.0
"""Seconds after which a log without a live panel says how far the running trials are."""


class Progress(Watcher):
    """Shows trials done, running and pruned, the best so far, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ledger: Ledger | None = None
        self._form: ImageForm | None = None
        self._display: LiveDisplay | None = None
        self._said: set[str] = set()
        self._started = self._last_line = 0.0
        self._done_before = 0

    def begin(self, ledger: Ledger, resources: Resources, concurrent: int, form: ImageForm) -> None:
        """The cluster is up and trials start."""
        self._ledger, self._form, self._started = ledger, form, time.monotonic()
        self._done_before = len(ledger.ended)
        self._said = set(ledger.ended)
        gpus = f", {resources.gpus:g} GPU" if resources.gpus else ""
        workers = f"{resources.workers} workers of " if resources.workers > 1 else ""
        self.say(
            f"{concurrent} trials at a time, each {workers}{resources.cpus} CPU{gpus}"
            + (f"; {self._done_before} trials done before" if self._done_before else "")
        )
        if self._console.is_terminal:
            self._display = LiveDisplay(get_renderable=self._panel, console=self._console, refresh_per_second=2)
            self._display.start()

    def change(self) -> None:
        """Print a line for each trial that has ended since."""
        for trial, row in list(self._book.ended.items()):
            if trial not in self._said:
                self._said.add(trial)
                self.say(self._line(row))
        is_due = time.monotonic() - self._last_line > _LONGEST_SILENCE
        if is_due and self._display is None and self._book.live:
            running = ", ".join(
                " ".join(filter(None, _live_cells(live, self._book.objective))) for live in self._live()
            )
            self.say(f"Running: {running}  | {self._count()} | {self._best()} | {self._left()}")

    def say(self, text: str) -> None:
        """One line, above the live panel where there is one."""
        self._last_line = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """No trial runs any more."""
        if self._ledger is not None:
            self.change()
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _line(self, row: Row) -> str:
        value = self._book.number(row)
        number = "" if value is None else f" {value:.4f}"
        why = f" ({row['reason']})" if row["reason"] and row["status"] != Status.PRUNED else ""
        seconds = sum(row[name] or 0 for name in ("train_seconds", "eval_seconds", "compile_seconds"))
        return (
            f"{row['trial']} {row['status']:<8}{number}  {row['images_seen'] or 0:>9,} images {seconds:6.1f} s  "
            f"{self._settings(row)}{why}  | {self._count()} | {self._best()} | {self._left()}"
        )

    @property
    def _book(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    def _live(self) -> list[Live]:
        return list(self._book.live.values())

    def _settings(self, row: Row) -> str:
        return " ".join(
            f"{key.rpartition('.')[2]}={_short(row[key])}" for key in self._book.space.shown if row.get(key) is not None
        )

    def _count(self) -> str:
        ended = self._book.ended.values()
        pruned = sum(row["status"] == Status.PRUNED for row in ended)
        bad = sum(row["status"] not in (Status.PRUNED, Status.FINISHED) for row in ended)
        text = f"{len(ended)}/{self._book.space.budget.trials} done, {len(self._book.live)} running, {pruned} pruned"
        return text + (f", {bad} without a result" if bad else "")

    def _best(self) -> str:
        if self._book.space.is_final:
            return "means over seeds at the end"
        best = self._book.best()
        if best is None:
            return "no number yet"
        value, baseline = best["valid_bits_per_dim"], self._book.baseline
        text = f"best {value:.4f} bits/dim ({best['trial']})"
        if baseline:
            text += f", {100 * (1 - value / baseline):.1f}% below the baseline {baseline:.4f}"
        return text + _beside_published(best, self._form)

    def _left(self) -> str:
        done = len(self._book.ended) - self._done_before
        if not done:
            return "time left: unknown"
        rest = self._book.space.budget.trials - len(self._book.ended)
        seconds = (time.monotonic() - self._started) / done * rest
        return f"about {_clock(seconds)} left"

    def _panel(self) -> Group:
        head = Table.grid(padding=(0, 2))  # a bar ends no line of its own
        bar = ProgressBar(total=self._book.space.budget.trials, completed=len(self._book.ended), width=30)
        head.add_row(bar, f"{self._count()} · {self._left()}")
        table = Table.grid(padding=(0, 2))
        for live in self._live():
            table.add_row(*_live_cells(live, self._book.objective))
        return Group(head, Text(self._best()), table)


def _beside_published(row: Row, form: ImageForm | None) -> str:
    """The closest published result of the same task, if any, with the gap and what else differs."""
    if form is None:
        return ""
    shape = {"image_channels": form.channels, "image_height": form.height, "image_width": form.width}
    nearest = best_published(identity_of(row | shape | {"levels": form.levels}))
    ours = value_of(row, nearest[0].metric) if nearest else None
    if nearest is None or ours is None:
        return ""
    published, verdict = nearest
    unit = "bits/dim" if published.metric == "bits_per_dim" else "nats"
    notes = "; ".join([f"{ours - published.value:+.3f}", *verdict.why_not])
    return f"; published {published.value:g} {unit} ({notes})"


def _live_cells(live: Live, objective: str) -> tuple[str, ...]:
    total = live.plan.config.train.end
    if not live.reports:
        return live.plan.trial, "starting", "", ""
    last = live.reports[max(live.reports)]
    return (
        live.plan.trial,
        f"{last['images_seen']:,} / {total:,} images",
        f"{last[objective]:.4f}" if last[objective] is not None else f"train {last['train_bits_per_dim']:.4f}",
        f"{last['images_per_second']:,.0f} images/s",
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
