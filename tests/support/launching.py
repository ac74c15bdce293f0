"""launch.py as a user runs it: a process group of its own, its two streams, what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pixeltune.results.parquet_io import Row
from pixeltune.results.store import SearchStore

ROOT = Path(__file__).resolve().parents[2]
MARK = "PIXELTUNE_TEST_LAUNCH"
"""Environment variable by which the descendants of a launch are known."""

SEARCH = """
from optuna.distributions import FloatDistribution, IntDistribution
from pixeltune import Asha, Budget, SearchSpace, TrialConfig

search = SearchSpace(
    title="tiny",
    base=TrialConfig.build({{
        "data": {{"name": "digits", "num_valid": 100}},
        "model": {{"family": "gated", "layers": 2, "channels": 8, "kernel_size": 3}},
        "likelihood": {{"name": "categorical"}},
        "optim": {{"lr": 0.01, "ema": 0.9}},
        "train": {{"images": {images}, "batch_size": 50, "report_every": {every}}},
    }}),
    vary={{"model.channels": IntDistribution(4, 8), "optim.lr": FloatDistribution({lowest_lr}, 0.03, log=True)}},
    budget=Budget(trials={trials}),
    scheduler={scheduler},
    sampler="random",
    keep=2,
)
"""


def write_search(
    folder: Path, *, images: int = 600, every: int = 100, trials: int = 6, rungs: str = "", lowest_lr: float = 0.003
) -> Path:
    """A search file of small real trainings."""
    path = folder / "tiny.py"
    scheduler = f"Asha(rungs=({rungs},))" if rungs else None
    values = {"images": images, "every": every, "trials": trials, "scheduler": scheduler, "lowest_lr": lowest_lr}
    path.write_text(SEARCH.format(**values))
    return path


class Launch:
    """A launch under way. Its descendants are known by a mark in their environment."""

    def __init__(
        self,
        search: Path,
        *options: str,
        temporary: str,
        interpreter: tuple[str, ...] = (),
        verb: tuple[str, ...] = (),
        program: str = "launch.py",
        **more: str,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = Path(temporary)
        self.folder = search.parent
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        environment = os.environ | {MARK: self.mark, "TMPDIR": temporary, "PYTHONPATH": path} | more
        streams = self.folder / f"{self.mark}.out", self.folder / f"{self.mark}.err"
        self._streams = streams
        entry = ("-m", "pixeltune", *verb) if verb else (str(ROOT / program), "--search", str(search))
        command = [sys.executable, *interpreter, *entry, *options]
        with streams[0].open("wb") as out, streams[1].open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, cwd=self.folder, start_new_session=True
            )

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._streams[0].read_text()

    @property
    def err(self) -> str:
        """What it has printed as an error."""
        return self._streams[1].read_text()

    def wait(self, seconds: float = 400) -> int:
        """Its exit code."""
        return self.process.wait(timeout=seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """AssertionError where it ends, or the time, before the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended early: {self.out}\n{self.err}"
            assert time.monotonic() < end, f"never happened: {self.out}\n{self.err}"
            time.sleep(0.1)

    def signal_group(self, which: signal.Signals) -> None:
        """To every process of its group, as the terminal does with Ctrl-C."""
        os.killpg(self.process.pid, which)

    def kill(self) -> None:
        """SIGKILL, to the launcher alone."""
        self.process.kill()
        self.process.wait()

    def left_behind(self, seconds: float = 100) -> list[str]:
        """Command lines of its processes that are still there after some time."""
        end = time.monotonic() + seconds
        while (left := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.2)
        return list(left.values())

    def temporary_folders(self) -> list[str]:
        """What is left of those of Ray and Tune."""
        return sorted(path.name for path in self.temporary.iterdir() if path.name.startswith("pixeltune-"))

    def clean_up(self) -> None:
        """Whatever of it is left is killed."""
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def marked(mark: str) -> dict[int, str]:
    """Command lines of the processes with this mark, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


@contextlib.contextmanager
def launches(folder: Path) -> Iterator[Callable[..., Launch]]:
    """A function that launches; afterwards nothing of what it started is left, whatever happened."""
    started: list[Launch] = []
    temporary = tempfile.mkdtemp(prefix="pt-")

    def launch(search: Path, *options: str, **more: object) -> Launch:
        started.append(Launch(search, "--storage", str(folder), *options, temporary=temporary, **more))
        return started[-1]

    try:
        yield launch
    finally:
        for one in started:
            one.clean_up()
        shutil.rmtree(temporary, ignore_errors=True)


def store_in(folder: Path) -> SearchStore:
    """Of the search of `write_search`."""
    return SearchStore(str(folder), "tiny")


def ends(folder: Path) -> dict[tuple[str, int], str]:
    """Status by trial and attempt."""
    return {(row["trial"], row["attempt"]): row["status"] for row in store_in(folder).attempts()}


def files_of(folder: Path) -> dict[str, bytes]:
    """All Parquet files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def curve_of(folder: Path, trial: str) -> list[Row]:
    """The reports of a trial."""
    return store_in(folder).curve(trial)
