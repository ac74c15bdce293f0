"""Which silences are too long, on a clock that the test moves; and a launcher that stands still."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pixeltune.space import Patience
from pixeltune.tune.watchdog import EXIT_STALLED, LauncherWatchdog, Watchdog

REPORT: dict[str, Any] = {"report": {}}


class Hours:
    """A watchdog that looks every five seconds."""

    def __init__(self, **patience: float) -> None:
        self.clock = 1000.0
        self.dog = Watchdog(Patience(**patience), clock=lambda: self.clock)

    def pass_by(self, seconds: float) -> None:
        for step in [5.0] * int(seconds // 5) + [seconds % 5]:
            self.clock += step
            self.dog.look()

    def start(self, trial: str, *, expects: float = 0.0, seconds: float = 5.0) -> None:
        self.dog.begin(trial)
        self.pass_by(seconds)
        self.dog.hear(trial, {"facts": {}, "resumed": [], "expects_seconds": expects})

    def report(self, trial: str, after: float) -> None:
        self.pass_by(after)
        self.dog.hear(trial, REPORT)


def test_a_trial_is_silent_after_so_many_times_its_usual_interval() -> None:
    hours = Hours(times=10, minutes=1)
    hours.start("a")
    for seconds in (500, 20, 20, 30, 20):  # one slow one does not make it slow
        hours.report("a", seconds)
    hours.pass_by(200)
    assert hours.dog.silent() == {}
    hours.pass_by(5)
    assert hours.dog.silent() == {
        "a": "no report in 205 s, where its reports come every 20 s and 200 s are allowed",
    }
    hours.dog.forget("a")
    assert hours.dog.silent() == {}


def test_quick_trials_get_the_least_that_is_allowed() -> None:
    hours = Hours(minutes=10)
    hours.start("a")
    for _ in range(5):
        hours.report("a", 0.1)
    hours.pass_by(600)
    assert hours.dog.silent() == {}
    hours.pass_by(1)
    assert list(hours.dog.silent()) == ["a"]


def test_each_trial_by_its_own_pace() -> None:
    hours = Hours(minutes=0.1)
    hours.start("quick")
    hours.start("slow")
    for _ in range(3):
        for _ in range(3):
            hours.report("quick", 10)
        hours.dog.hear("slow", REPORT)
    hours.pass_by(110)
    assert list(hours.dog.silent()) == ["quick"]
    hours.pass_by(200)
    assert list(hours.dog.silent()) == ["quick", "slow"]


def test_before_its_first_word_a_trial_has_the_time_of_a_start() -> None:
    hours = Hours(minutes=0.1, start_minutes=30)
    hours.dog.begin("a")
    hours.pass_by(1800)
    assert hours.dog.silent() == {}
    hours.pass_by(5)
    assert hours.dog.silent() == {"a": "no report in 1805 s after its start, where 1800 s are allowed"}


def test_slow_starts_of_others_are_usual() -> None:
    hours = Hours(minutes=0.1, start_minutes=1)
    for trial in "ab":
        hours.start(trial, seconds=50)
        hours.dog.forget(trial)
    hours.dog.begin("c")
    hours.pass_by(500)
    assert hours.dog.silent() == {}
    hours.pass_by(5)
    assert list(hours.dog.silent()) == ["c"]


def test_a_first_interval_is_foreseen_and_corrected_by_what_others_took() -> None:
    """A large model on a slow machine may train for hours before its first report."""
    hours = Hours(minutes=10)
    hours.start("a", expects=3600)
    hours.pass_by(36000)
    assert hours.dog.silent() == {}
    hours.report("a", 0)  # ten times slower than foreseen
    hours.start("b", expects=360)
    hours.pass_by(36000)
    assert "b" not in hours.dog.silent()
    hours.pass_by(10)
    assert "b" in hours.dog.silent()


def test_a_trial_may_ask_for_time() -> None:
    hours = Hours(minutes=1)
    hours.start("a")
    hours.report("a", 1)
    hours.dog.hear("a", {"expects_seconds": 600})
    hours.pass_by(6000)
    assert hours.dog.silent() == {}
    hours.report("a", 0)
    hours.report("a", 1)
    hours.report("a", 1)
    hours.pass_by(65)
    assert list(hours.dog.silent()) == ["a"], "what it asked for is over with its report"


def test_a_new_attempt_starts_anew_and_knows_the_pace_of_the_one_before() -> None:
    hours = Hours(minutes=1, start_minutes=5)
    hours.start("a")
    hours.report("a", 20)
    hours.pass_by(201)
    assert list(hours.dog.silent()) == ["a"]
    hours.dog.begin("a")
    assert hours.dog.silent() == {}
    hours.pass_by(250)
    hours.dog.hear("a", {"facts": {}, "resumed": []})
    hours.pass_by(195)
    assert hours.dog.silent() == {}
    hours.pass_by(10)
    assert list(hours.dog.silent()) == ["a"]


def test_a_watchdog_that_slept_itself_blames_nobody() -> None:
    """A suspended machine, or a launcher stopped by Ctrl-Z: the messages of that time still wait to be heard."""
    hours = Hours(minutes=1)
    hours.start("a")
    hours.clock += 100_000
    hours.dog.look()
    assert hours.dog.silent() == {}


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dog = Watchdog(Patience(minutes=1, start_minutes=1))
    dog.begin("a")
    for jump in (1e6, -1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        dog.look()
        assert dog.silent() == {}
        assert dog.now < 5


def _until(happened: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened and time.monotonic() < end:
        time.sleep(0.01)


def test_a_launch_that_stands_still_ends_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    left: list[int] = []
    with LauncherWatchdog(0.2, tick=0.02, leave=left.append).watching():
        _until(left, 10)
    assert left == [EXIT_STALLED]
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "this launch has been stuck in _until (" in error
    assert "its results are kept; run the same command again to resume" in error


def test_a_launch_that_moves_goes_on() -> None:
    left: list[int] = []
    with LauncherWatchdog(0.5, tick=0.02, leave=left.append).watching() as watchdog:
        for _ in range(100):
            watchdog.beat()
            time.sleep(0.01)
    assert left == []
