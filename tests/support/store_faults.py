"""Faults at any moment of a search of no-op trials that runs without Ray, in a process of its own.

`FAULTS`: by name a function from a moment (of MOMENTS, spread over the whole run, each with its own seed) and an empty
folder to the harm that was done. A killed process is a real one, and dies by SIGKILL between two of its operations on
files.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from pixeltune import files
from pixeltune.errors import PixeltuneError
from pixeltune.results.store import SearchStore
from pixeltune.search import attempt
from tests.support.harm import Before, Harm, count_harm
from tests.support.noop import Orders, drive, instruct, noop_space

MOMENTS = 20
SPACE = noop_space(trials=6, images=800, every=100)
NEVER = 10**9
_LONGEST_SECONDS = 60.0

Fault = Callable[..., None]
"""Told of each operation on a file, before it is done, by name and arguments; may raise, or never return."""


class At:
    """Calls `what` at the operation of this number, and at the `times - 1` after it, of one kind or of all."""

    def __init__(self, number: int, what: Fault, times: int = 1, kind: str = "") -> None:
        self.number, self.what, self.times, self.kind, self.seen = number, what, times, kind, 0

    def __call__(self, name: str, *arguments: Any) -> None:
        """An operation comes."""
        self.seen += not self.kind or name == self.kind
        if self.number <= self.seen < self.number + self.times and name == (self.kind or name):
            self.what(name, *arguments)


def killed(*_operation: Any) -> None:
    """As by the kernel."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_half_written(_name: str, handle: int) -> None:
    """As a full buffer leaves a file that is being filled."""
    os.ftruncate(handle, os.fstat(handle).st_size // 2)
    killed()


def refused(name: str, *_arguments: Any) -> None:
    """As a network disk whose server restarts."""
    raise OSError(errno.EIO, f"Input/output error at {name}")


def full(name: str, *_arguments: Any) -> None:
    """As a full disk, which can be read and freed."""
    if name in ("fill", "publish"):
        raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def meeting(fault: Fault) -> Iterator[None]:
    """Every operation of `files` on a disk asks `fault` first: a file is filled, published, settled, removed, read."""

    def asked(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            fault(name, *arguments)
            return real(*arguments, **options)

        return run

    fill, settle = asked("fill", os.fsync), asked("settle", os.fsync)

    def fsync(handle: int) -> None:
        (settle if stat.S_ISDIR(os.fstat(handle).st_mode) else fill)(handle)

    with (
        mock.patch.object(files.os, "fsync", fsync),
        mock.patch.object(files.shutil, "rmtree", asked("remove", shutil.rmtree)),
        mock.patch.object(Path, "replace", asked("publish", Path.replace)),
        mock.patch.object(Path, "read_bytes", asked("read", Path.read_bytes)),
        mock.patch.object(files.time, "sleep"),
    ):
        yield


class Scene:
    """One run: a folder, a moment with its own chance, and what came of it."""

    def __init__(self, name: str, moment: int, folder: Path) -> None:
        self.folder, self.moment = folder, moment
        self.chance = random.Random(f"{name} {moment}")
        self.store = SearchStore(str(folder), "noop")
        self.harm = Harm()
        self.before = Before([], [])
        self.ends: dict[str, str] = {}
        self._began = time.monotonic()

    def number(self, kind: str = "") -> int:
        """An operation of this kind, in the moment's part of the whole run."""
        share = (self.moment % MOMENTS + self.chance.random()) / MOMENTS
        return 1 + int(share * operations()[kind])

    def run(self, fault: Fault = lambda *_operation: None) -> tuple[str, str]:
        """Begin or go on with the search in a process.

        Returns how it ended ("finished", "killed", "refused", "hung" or "crashed"), and what it said.
        """
        with TemporaryDirectory() as told:
            pid = os.fork()
            if pid == 0:
                _drive(self.folder, fault, Path(told, "words"))
            status = _status(pid)
            words = Path(told, "words").read_text() if Path(told, "words").exists() else ""
        if status is None:
            self.harm.add("hangs", f"after {_LONGEST_SECONDS:g} s")
            return "hung", words
        if os.WIFSIGNALED(status):
            return "killed", words
        return {0: "finished", 2: "refused"}.get(os.WEXITSTATUS(status), "crashed"), words

    def require(self, got: tuple[str, str], ending: str, *words: str) -> None:
        """An ending, told in one line with these words."""
        self.harm.require(got[0] == ending, f"a process must have {ending}, but {got}")
        self.harm.require("\n" not in got[1] and all(word in got[1] for word in words), f"said {got[1]!r}")

    def strike(self) -> None:
        """The fault has come: what stands now must stay."""
        self.before, self._began = Before.of(self.store), time.monotonic()

    def close(self) -> Harm:
        """The last process has run; look at what there is."""
        self.harm.seconds = time.monotonic() - self._began
        count_harm(self.harm, self.store, SPACE, ends=self.ends, before=self.before)
        left = [path.name for path in self.folder.rglob(".part-*")]
        self.harm.require(not left, f"half-written files: {left}")
        return self.harm


def _drive(folder: Path, fault: Fault, told: Path) -> None:
    try:
        with meeting(fault):
            drive(SPACE, str(folder))
    except PixeltuneError as error:
        told.write_text(str(error))
        os._exit(2)
    except BaseException as error:
        told.write_text(repr(error))
        os._exit(1)
    os._exit(0)


def _status(pid: int) -> int | None:
    """Of a process that ended, in time."""
    end = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@cache
def operations() -> dict[str, int]:
    """How many operations a whole run takes, of each kind, and in all under ""."""
    counts = dict.fromkeys(("", "fill", "publish", "settle", "remove", "read"), 0)

    def count(name: str, *_arguments: Any) -> None:
        counts[""] += 1
        counts[name] += 1

    with TemporaryDirectory() as folder, meeting(count):
        drive(SPACE, folder)
    return counts


def _kill(scene: Scene, at: At) -> Harm:
    scene.require(scene.run(at), "killed")
    scene.strike()
    scene.require(scene.run(), "finished")
    return scene.close()


def killed_anywhere(scene: Scene) -> Harm:
    """Killed three times, at operations of any kind, before the search may come to its end."""
    number = scene.number()
    for _ in range(3):
        ended = scene.run(At(number, killed))
        if ended[0] == "finished":  # little was left
            break
        scene.require(ended, "killed")
        scene.strike()
        number = scene.chance.randrange(1, 100)
    scene.require(scene.run(), "finished")
    return scene.close()


def killed_publishing(scene: Scene) -> Harm:
    """Killed when a file is filled and synced, and not renamed yet."""
    return _kill(scene, At(scene.number("publish"), killed, kind="publish"))


def killed_writing(scene: Scene) -> Harm:
    """Killed with half a file written."""
    return _kill(scene, At(scene.number("fill"), killed_half_written, kind="fill"))


def refuses_briefly(scene: Scene) -> Harm:
    """A storage that refuses as often as it is asked again, at three places."""
    faults = [At(scene.number() + 40 * again, refused, times=files.TRIES - 1) for again in range(3)]

    def all_of_them(*operation: Any) -> None:
        for fault in faults:
            fault(*operation)

    scene.require(scene.run(all_of_them), "finished")
    return scene.close()


def refuses_for_good(scene: Scene) -> Harm:
    """A storage that refuses from a moment on, and is mended before the next launch."""
    scene.require(scene.run(At(scene.number(), refused, times=NEVER)), "refused", "Input/output error")
    scene.strike()
    scene.require(scene.run(), "finished")
    return scene.close()


def disk_full(scene: Scene) -> Harm:
    """A disk that is full from a moment on, and is freed before the next launch."""
    ended = scene.run(At(scene.number("fill"), full, times=NEVER, kind="fill"))
    scene.require(ended, "refused", "must be writable", "No space left on device")
    scene.strike()
    scene.require(scene.run(), "finished")
    return scene.close()


def clock_jumps(scene: Scene) -> Harm:
    """A clock that goes a year, a day, an hour back and forth at every look, in a search that is killed once."""
    steps = [timedelta(days=365), timedelta(days=1), timedelta(hours=1), timedelta(0)]

    def jumping() -> datetime:
        return datetime.now(UTC) + scene.chance.choice((-1, 1)) * scene.chance.choice(steps)

    with mock.patch.object(attempt, "now", jumping):
        return _kill(scene, At(scene.number(), killed))


def two_launchers(scene: Scene) -> Harm:
    """A second launcher comes at a moment of the first: it is told who holds the search, and the first goes on."""
    arrived, go = os.pipe(), os.pipe()

    def stand_still(*_operation: Any) -> None:
        os.write(arrived[1], str(os.getpid()).encode())
        os.read(go[0], 1)

    pid = os.fork()
    if pid == 0:
        _drive(scene.folder, At(scene.number(), stand_still), scene.folder / "words")
    first = os.read(arrived[0], 20).decode()
    scene.strike()
    scene.require(scene.run(), "refused", "one launch must work on a search at a time", f"process {first} ")
    os.write(go[1], b"x")
    scene.harm.require(_status(pid) == 0, "the first launcher must come to its end")
    for end in (*arrived, *go):
        os.close(end)
    return scene.close()


def _told(what: str, *, at_once: bool = False) -> Callable[[Scene], Harm]:
    def run(scene: Scene) -> Harm:
        trial = scene.chance.randrange(SPACE.budget.trials)
        images = 0 if at_once else 100 * scene.chance.randrange(1, 9)
        instruct(scene.folder, Orders(trial=f"{trial:05d}", what=what, images=images, attempts=9))
        ended = scene.run(At(scene.number(), killed))
        scene.strike()
        if ended[0] != "finished":
            scene.require(ended, "killed")
            scene.require(scene.run(), "finished")
        status = scene.store.trials()[trial]["status"]
        scene.ends[f"{trial:05d}"] = what if status != "pruned" else "pruned"  # the scheduler may have been first
        return scene.close()

    run.__doc__ = f"A trial ends {what} at a report, and the search is killed once."
    return run


FAULTS: dict[str, Callable[[Scene], Harm]] = {
    "killed": killed_anywhere,
    "killed publishing": killed_publishing,
    "killed writing": killed_writing,
    "storage refuses 3 times": refuses_briefly,
    "storage refuses for good": refuses_for_good,
    "disk full": disk_full,
    "clock jumps": clock_jumps,
    "two launchers": two_launchers,
    "NaN": _told("diverged"),
    "out of memory": _told("oom"),
    "rejected by audit": _told("rejected", at_once=True),
}


def harm_at(name: str, moment: int, folder: Path) -> Harm:
    """Run one fault at one moment, in an empty folder."""
    return FAULTS[name](Scene(name, moment, folder))
