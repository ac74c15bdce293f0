"""A search of no-op trials killed, refused or left without a disk at any moment: no row is lost or doubled.

The killed process is a real one, and dies by SIGKILL between two of its operations on files. Nothing here starts Ray.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pixeltune import files
from pixeltune.errors import StoreError
from pixeltune.results.store import SearchStore

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from noop import drive, noop_space

SPACE = noop_space(trials=6, images=800, every=100)
MOMENTS = 20

Fault = Callable[[str], None]
"""Told of each operation on a file, before it is done; may raise, or never return."""


def with_fault(fault: Fault, patch: pytest.MonkeyPatch) -> None:
    """Every operation by which `files` changes a disk asks `fault` first: a file is filled, published, removed."""

    def asked(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            fault(name)
            return real(*args, **kwargs)

        return run

    patch.setattr(files.os, "fsync", asked("fill", os.fsync))
    patch.setattr(files.shutil, "rmtree", asked("remove", files.shutil.rmtree))
    patch.setattr(Path, "replace", asked("publish", Path.replace))


class At:
    """Calls `what` at the operation of this number, and at the `times - 1` after it."""

    def __init__(self, number: int, what: Fault, times: int = 1) -> None:
        self.number, self.what, self.times, self.seen = number, what, times, 0

    def __call__(self, name: str) -> None:
        self.seen += 1
        if self.number <= self.seen < self.number + self.times:
            self.what(name)


def killed(_name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(name: str) -> None:
    raise OSError(errno.EIO, f"Input/output error at {name}")


def full(_name: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def ends_killed(folder: Path, fault: Fault) -> bool:
    """Go on with the search in a process of its own; whether it died of SIGKILL rather than come to its end."""
    pid = os.fork()
    if pid == 0:
        with pytest.MonkeyPatch.context() as patch:
            with_fault(fault, patch)
            drive(SPACE, str(folder))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def operations(folder: Path) -> int:
    counter = At(-1, killed)
    with pytest.MonkeyPatch.context() as patch:
        with_fault(counter, patch)
        drive(SPACE, str(folder))
    return counter.seen


def require_whole(folder: Path) -> None:
    """All trials ended once, with all their reports, each once, images seen never going back."""
    store = SearchStore(str(folder), "noop")
    last = {row["trial"]: row for row in store.trials()}
    assert list(last) == [f"{number:05d}" for number in range(SPACE.budget.trials)]
    for trial, row in last.items():
        assert row["status"] in ("finished", "pruned")
        attempts = [other for other in store.attempts() if other["trial"] == trial]
        assert [other["attempt"] for other in attempts] == list(range(1, len(attempts) + 1))
        assert all(other["status"] == "interrupted" for other in attempts[:-1])
        assert len({other["config_key"] for other in attempts}) == 1
        points = [(point["attempt"], point["images_seen"]) for point in store.curve(trial)]
        assert [images for _, images in points] == list(range(100, row["images_seen"] + 1, 100))
        assert points == sorted(points)
    assert not (folder / "noop" / "_corrupt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_any_moment_nothing_is_lost_or_doubled(moment: int, tmp_path: Path) -> None:
    """Killed at a moment of the whole run, and again at one of what is left, and once more."""
    chance = random.Random(moment)
    number = chance.randrange(1, operations(tmp_path / "whole") + 1)
    folder, kills = tmp_path / "r", 0
    while ends_killed(folder, At(number, killed)):
        kills += 1
        before = {row["trial"]: row for row in SearchStore(str(folder), "noop").trials()}
        number = chance.randrange(1, 100) if kills < 3 else 10**9
        ended = {trial for trial, row in before.items() if row["status"] in ("finished", "pruned")}
    assert kills
    require_whole(folder)
    after = {row["trial"]: row for row in SearchStore(str(folder), "noop").trials()}
    assert all(after[trial] == before[trial] for trial in ended), "what has ended stays as it is"


@pytest.mark.parametrize("moment", range(4))
def test_a_storage_that_refuses_a_few_times_is_asked_again(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()
    monkeypatch.setattr(files.time, "sleep", waits.append)
    number = random.Random(moment).randrange(1, 300)
    with_fault(At(number, refused, times=files.TRIES - 1), monkeypatch)
    drive(SPACE, str(tmp_path))
    require_whole(tmp_path)
    assert len(waits) <= files.TRIES - 1


def test_a_storage_that_goes_on_refusing_ends_the_search_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.time, "sleep", lambda _seconds: None)
    with monkeypatch.context() as patch:
        with_fault(At(100, refused, times=10**9), patch)
        with pytest.raises(StoreError, match=r"must be writable.*Input/output error") as caught:
            drive(SPACE, str(tmp_path))
        assert "\n" not in str(caught.value)
    drive(SPACE, str(tmp_path))
    require_whole(tmp_path)


def test_a_full_disk_is_not_asked_again_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        disk = At(100, full, times=10**9)
        with_fault(disk, patch)
        patch.setattr(files.time, "sleep", None)
        with pytest.raises(StoreError, match="No space left on device"):
            drive(SPACE, str(tmp_path))
    drive(SPACE, str(tmp_path))
    require_whole(tmp_path)


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day back and a day forth, while trials run and between launches."""
    from datetime import UTC, datetime, timedelta

    from pixeltune.search import clock

    chance = random.Random(0)

    def jumping() -> datetime:
        return datetime.now(UTC) + timedelta(days=chance.choice((-1, 0, 1)))

    monkeypatch.setattr(clock, "now", jumping)
    ends_killed(tmp_path, At(150, killed))
    drive(SPACE, str(tmp_path))
    require_whole(tmp_path)
