"""What a training shows between its reports."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from pixeltune.cli import progress_bar
from pixeltune.cli.progress_bar import training_progress

PROGRESS: dict[str, Any] = {"images_seen": 1500, "images_per_second": 100.0, "train_bits_per_dim": 2.5}
LINE = "1,500 of 6,000 images, train 2.5000 bits/dim, 100 images/s, 0:45 left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter((0.0, 30.0, 61.0, 61.0, 100.0, 122.0, 122.0))
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(clock))
    with training_progress(6000) as show:
        for _ in range(4):
            show(PROGRESS)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [LINE, LINE]


def test_what_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.0)
    with training_progress(6000) as show:
        show(PROGRESS | {"train_bits_per_dim": None, "images_per_second": 0.0})
    assert capsys.readouterr().out.strip() == "1,500 of 6,000 images, 0 images/s"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal)
    with training_progress(6000) as show:
        show(PROGRESS)
    assert "100 images/s" in terminal.getvalue()
    assert "2.5000" in terminal.getvalue()
