"""Faults at any moment of a search of no-op trials under Ray, launched as a user does.

`FAULTS`: what happens, on which Ray, in a search of what size. A moment, of MOMENTS spread over the whole search, is
that a certain report is in the store, and a part of the time to the next one more. `Stand` is the Ray; there must be no
other on the machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixeltune.cluster.spot_agent import ENDPOINT
from pixeltune.space import SearchSpace
from tests.support.harm import Before, Harm, count_harm
from tests.support.launching import MARK, Launch, launches, marked, store_in
from tests.support.metadata_service import Metadata, serving
from tests.support.noop import Orders, instruct, noop_space

MOMENTS = 20
_PAUSE = 0.15
"""Seconds between the reports of a trial."""
_LONGEST_SECONDS = 300.0
"""Of a launch, on a busy machine; whatever takes longer hangs."""
_FIRST_SECONDS = 6.0
"""From the cluster's answer to the first reports, about: the first moments lie there."""

_OF_TRIALS = re.compile(r"ray::(?!IDLE|\w+Agent|_AutoscalingCoordinatorActor)")
"""Processes that run something for a launch; the others are the cluster's own, of which Train adds one for all."""

SEARCH = """
from dataclasses import replace
from tests.support.noop import noop_space

search = replace(noop_space(trials={trials}, images={images}, every=100, stop=False), sampler="random", keep=0)
"""

Place = Literal["cluster", "nodes", "laptop"]
"""A standing cluster of one node; one of a head without places and two nodes with one each; the launch's own Ray."""


class Stand:
    """A Ray of a kind, for one run after another. address: "" where each launch starts its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.address = ""
        self.nodes: list[Any] = []
        self._mark = uuid.uuid4().hex
        self._cluster: Any = None
        if place != "laptop":
            self._start()

    def _start(self) -> None:
        from pixeltune.tune.ray_session import set_environment

        set_environment(None)  # before Ray is imported, which reads it then
        from ray.cluster_utils import Cluster

        os.environ[MARK] = self._mark
        places = 2 if self.place == "cluster" else 0
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": places, "include_dashboard": True})
        self.address = self._cluster.address
        self.complete()

    def complete(self) -> None:
        """Nodes that died are replaced."""
        while self.place == "nodes" and len(self.nodes) < 2:
            self.nodes.append(self._cluster.add_node(num_cpus=1))
            self._cluster.wait_for_nodes()

    def kill_node(self, number: int) -> None:
        """With all that runs on it."""
        self._cluster.remove_node(self.nodes.pop(number), allow_graceful=False)

    def processes(self, kind: str, run: Launch) -> list[int]:
        """Of trials ("ImplicitFunc") or of Train's workers ("RayTrainWorker")."""
        return sorted(pid for pid, words in self._busy(run).items() if kind in words)

    def left_behind(self, runs: list[Launch], seconds: float) -> list[str]:
        """Command lines of what launches that are over still run after some time."""
        end = time.monotonic() + seconds
        while True:
            left = [words for run in runs for words in (self._busy(run) if self.address else marked(run.mark)).values()]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.2)

    def _busy(self, run: Launch) -> dict[int, str]:
        found = marked(self._mark if self.address else run.mark)
        of_trials = {pid: words for pid, words in found.items() if _OF_TRIALS.match(words)}
        return of_trials | (marked(run.mark) if self.address else {})

    def close(self) -> None:
        """No process of it is left."""
        if self._cluster is not None:
            self._cluster.shutdown()
            del os.environ[MARK]
            for pid in marked(self._mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Scene:
    """One run: a folder, a moment with its own chance, and what came of it.

    known: temporary folders of another launch, which was killed or stands still.
    """

    def __init__(self, name: str, moment: int, folder: Path, stand: Stand, launch: Callable[..., Launch]) -> None:
        fault = FAULTS[name]
        self.folder, self.stand, self.moment = folder, stand, moment
        self.storage = folder / "r"
        self.chance = random.Random(f"{name} {moment}")
        self.space: SearchSpace = noop_space(trials=fault.trials, images=fault.images, every=100, stop=False)
        self.store = store_in(self.storage)
        self.harm = Harm()
        self.before = Before([], [])
        self.ends: dict[str, str] = {}
        self.runs: list[Launch] = []
        self.cleanup = contextlib.ExitStack()
        self.known: list[str] = []
        self._options = (*fault.options, *(("--address", stand.address) if stand.address else ()))
        self._launch = launch
        self._began = time.monotonic()
        (folder / "tiny.py").write_text(SEARCH.format(trials=fault.trials, images=fault.images), encoding="utf-8")

    @property
    def trials(self) -> int:
        """In all."""
        return self.space.budget.trials

    @property
    def reports(self) -> int:
        """Of a trial."""
        return self.space.base.train.images // 100

    def share(self) -> float:
        """Of the whole search, at which the moment comes; each moment has its own part, and its own place in it."""
        return (self.moment % MOMENTS + self.chance.random()) / MOMENTS

    def begin(self, **orders: Any) -> Launch:
        """Launch the search, or go on with it."""
        instruct(self.storage, Orders(seconds=_PAUSE, **orders))
        self.runs.append(self._launch(self.folder / "tiny.py", *self._options, program="tests/support/noop.py"))
        return self.runs[-1]

    def wait_for_moment(self, run: Launch) -> None:
        """Until the report that the moment asks for is in the store, or the first ones may be expected."""
        share, jitter = self.share(), self.chance.random()
        wanted = int(share * (self.trials * self.reports - 1))
        launch = Path(self.store.folder, "launch.json")
        if wanted == 0:
            run.wait_until(launch.exists, _LONGEST_SECONDS)
            time.sleep(_FIRST_SECONDS * jitter)
        else:
            run.wait_until(
                lambda: launch.exists() and self.store.curve_files.read().num_rows >= wanted, _LONGEST_SECONDS
            )
            time.sleep(_PAUSE * jitter)
        self.strike()

    def strike(self) -> None:
        """The fault comes: what stands now must stay."""
        self.before, self._began = Before.of(self.store), time.monotonic()

    def wait(self, run: Launch, code: int = 0, *words: str) -> None:
        """A launch comes to its end with this exit code; one that stops says why in one line, with these words."""
        try:
            got = run.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.harm.add("hangs", f"after {_LONGEST_SECONDS:g} s: {run.out[-500:]}")
            run.clean_up()
            return
        self.harm.require(got == code, f"exit code {got}, not {code}: {run.out[-500:]}")
        lines = run.err.splitlines()
        is_right = len(lines) == 1 and all(word in run.err for word in words) if words else not lines
        self.harm.require(is_right, f"said {run.err[-500:]!r}")
        self.harm.require("Traceback" not in run.out, "a traceback")
        folders = [name for name in run.temporary_folders() if name not in self.known]
        self.harm.require(not folders, f"left {folders}")

    def kill_one(self, kind: str, run: Launch) -> None:
        """One of the processes of this kind that run now, or come next."""
        while not (found := self.stand.processes(kind, run)):
            if run.process.poll() is not None:
                self.harm.require(False, "no process was left to be killed")
                return
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(found), signal.SIGKILL)

    def close(self, left_seconds: float = 60.0) -> Harm:
        """The last launch is over; look at what there is."""
        self.harm.seconds = time.monotonic() - self._began
        count_harm(self.harm, self.store, self.space, ends=self.ends, before=self.before)
        left = self.stand.left_behind(self.runs, left_seconds)
        self.harm.add("left_behind", f"{left[:5]}", len(left))
        return self.harm


def _kill_and_finish(kind: str) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        launch = scene.begin()
        scene.wait_for_moment(launch)
        scene.kill_one(kind, launch)
        scene.wait(launch)

    return run


def launcher_killed(scene: Scene) -> None:
    """And the same command at once again."""
    launch = scene.begin()
    scene.wait_for_moment(launch)
    launch.kill()
    scene.strike()
    scene.known = launch.temporary_folders()
    again = scene.begin()
    scene.wait(again)
    done = sum(row["status"] == "finished" for row in scene.before.rows)
    words = f"all {done} trials are done" if done == scene.trials else f"{done} trials done before"
    scene.harm.require(not done or words in again.out, f"said {again.out[:300]}")


def interrupted(scene: Scene) -> None:
    """Ctrl-C, to the launcher alone or to its whole group, and the same command again."""
    launch = scene.begin()
    scene.wait_for_moment(launch)
    if scene.moment % 2:
        launch.process.send_signal(signal.SIGINT)
    else:
        launch.signal_group(signal.SIGINT)
    scene.wait(launch, 130)
    if "Stopping: " in launch.out:  # else it had not begun
        again = f"To go on: python noop.py --search {scene.folder / 'tiny.py'} --storage {scene.storage}"
        scene.harm.require("Ended: interrupted." in launch.out and again in launch.out, launch.out[-500:])
    statuses = {row["status"] for row in scene.store.attempts()}
    scene.harm.require("running" not in statuses, "a trial is running still")
    scene.wait(scene.begin())


def two_launchers(scene: Scene) -> None:
    """The second is told of the first, which stands still meanwhile, for it might else be over before."""
    launch = scene.begin()
    scene.wait_for_moment(launch)
    launch.process.send_signal(signal.SIGSTOP)
    scene.known = launch.temporary_folders()
    scene.wait(scene.begin(), 2, "one launch must work on a search at a time", f"process {launch.process.pid} ")
    scene.known = []
    launch.process.send_signal(signal.SIGCONT)
    scene.wait(launch)


def node_killed(scene: Scene) -> None:
    """One of two; its trial goes on where there is a place."""
    launch = scene.begin()
    scene.wait_for_moment(launch)
    scene.stand.kill_node(scene.chance.randrange(2))
    scene.wait(launch)
    failed = [(row["trial"], row["traceback"]) for row in scene.store.attempts() if row["status"] == "failed"]
    scene.harm.require(not failed, f"a node's death is no fault of a trial, but {failed}")


_NOTICE_SECONDS = 30.0
"""Before a spot machine is gone; clouds give 30 or 120. The agent looks every 5 s, and imports Ray then."""


def spot_taken(scene: Scene) -> None:
    """The notice for one of two nodes, on which the real agent watches; it is gone when it was said to be."""
    number, metadata = scene.chance.randrange(2), Metadata()
    node = scene.stand.nodes[number]
    with serving(metadata) as endpoint:
        agent = [sys.executable, "-m", "pixeltune", "cluster", "watch-spot", "aws", "--node", node.node_id]
        subprocess.run(agent, env=os.environ | {ENDPOINT: endpoint}, check=True, capture_output=True)
        launch = scene.begin()
        scene.wait_for_moment(launch)
        gone = metadata.take_away(_NOTICE_SECONDS)
        while time.time() < gone:
            time.sleep(0.1)
        log = Path(node.get_logs_dir_path(), "pixeltune-spot.log").read_text(encoding="utf-8")
        scene.harm.require("Ray knows" in log, f"the agent said {log[-500:]}")
        scene.stand.kill_node(number)
        scene.wait(launch)
    others = [row for row in scene.store.attempts() if row["status"] not in ("finished", "interrupted")]
    scene.harm.require(not others, f"{[(row['trial'], row['status'], row['reason']) for row in others]}")
    reasons = {row["reason"] for row in scene.store.attempts() if row["status"] == "interrupted"}
    scene.harm.require(reasons <= {"its node was taken away (spot notice)"}, f"reasons {reasons}")
    is_early = scene.moment % MOMENTS < MOMENTS // 2
    scene.harm.require(bool(reasons) or not is_early, "no trial ran on the node that was taken away")


def disk_full(scene: Scene) -> None:
    """All of a small disk is taken at a moment, and freed before the next launch."""
    scene.cleanup.enter_context(_small_disk(scene.storage))
    launch = scene.begin()
    scene.wait_for_moment(launch)
    filler, end = scene.storage / "filler", time.monotonic() + _LONGEST_SECONDS
    with filler.open("wb", buffering=0) as stream:
        while launch.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(4096))
            time.sleep(0.01)
    scene.wait(launch, 2, "must be writable", "No space left on device", "take another --storage")
    failed = [row["trial"] for row in scene.store.attempts() if row["status"] == "failed"]
    scene.harm.require(not failed, f"a full disk is no fault of {failed}")
    filler.unlink()
    scene.strike()
    scene.wait(scene.begin())


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _told(what: str) -> Callable[[Scene], None]:
    """A trial meets with it in its first attempt, at every other moment in both: then it has failed."""

    def run(scene: Scene) -> None:
        place = int(scene.share() * scene.trials * scene.reports)
        trial, attempts = f"{place // scene.reports:05d}", 1 + scene.moment % 2
        if attempts == 2:
            scene.ends[trial] = "failed"
        launch = scene.begin(trial=trial, what=what, images=100 * (1 + place % scene.reports), attempts=attempts)
        scene.strike()
        scene.wait(launch)
        tried = [row["status"] for row in scene.store.attempts() if row["trial"] == trial]
        scene.harm.require(tried[:attempts] == ["failed"] * attempts, f"{trial} ended {tried}")

    return run


@dataclass(frozen=True)
class Fault:
    """run: what happens. place: on which Ray. trials, images, options: of the search. left_seconds: that processes may
    take to go; Ray's agents first try for a minute or two to tell a head that was killed with its launcher."""

    run: Callable[[Scene], None]
    place: Place = "cluster"
    trials: int = 6
    images: int = 800
    options: tuple[str, ...] = ()
    left_seconds: float = 60.0


_PATIENCE = ("--set", "patience.minutes=0.25", "--set", "patience.times=3", "--set", "patience.start_minutes=1")

FAULTS: dict[str, Fault] = {
    "trial killed": Fault(_kill_and_finish("ImplicitFunc")),
    "trial raises": Fault(_told("raise")),
    "trial hangs": Fault(_told("hang"), options=_PATIENCE),
    "launcher killed": Fault(launcher_killed),
    "two launchers under Ray": Fault(two_launchers),
    "disk full under Ray": Fault(disk_full),
    "Train worker killed": Fault(
        _kill_and_finish("RayTrainWorker"), trials=1, images=1600, options=("--set", "resources.workers=2")
    ),
    "node killed": Fault(node_killed, place="nodes"),
    "spot node taken": Fault(spot_taken, place="nodes", images=8000),
    "Ctrl-C": Fault(interrupted, place="laptop"),
    "launcher killed with its Ray": Fault(launcher_killed, place="laptop", left_seconds=200.0),
}


def harm_at(name: str, moment: int, folder: Path, stand: Stand) -> Harm:
    """Run one fault at one moment, in an empty folder, on a stand of its place."""
    fault = FAULTS[name]
    assert stand.place == fault.place
    stand.complete()
    with launches(folder / "r") as launch:
        scene = Scene(name, moment, folder, stand, launch)
        with scene.cleanup:
            fault.run(scene)
            return scene.close(fault.left_seconds)
