"""The notice of other launches that train on the CPUs of this machine; their processes are imitated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pixeltune.cluster import ray_backend
from pixeltune.cluster.ray_backend import RayBackend
from pixeltune.tune import other_launches
from pixeltune.tune.other_launches import notice_of_others

PROCESS = """
import subprocess, sys
from contextlib import nullcontext

from pixeltune.results.lock import lock_folder

RAYLET = ["raylet", "-c", "import time; print(flush=True); time.sleep(600)"]
folder, ray = sys.argv[1:3]
with lock_folder(folder) if folder else nullcontext():
    raylet = subprocess.Popen([*RAYLET, ray], executable=sys.executable, stdout=subprocess.PIPE) if ray else None
    if raylet:
        raylet.stdout.readline()  # before, its command line may be empty
    print(flush=True)
    sys.stdin.read()
    if raylet:
        raylet.kill()
        raylet.wait()
"""
"""A launch that holds a folder, and has a raylet, until its input ends."""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an imitated launch; only those of this test are seen."""
    monkeypatch.chdir(tmp_path)
    running: list[subprocess.Popen[bytes]] = []
    every = other_launches.own_processes

    def ours() -> Iterator[tuple[int, list[str]]]:
        for pid, words in every():
            if str(tmp_path) in " ".join(words) or pid == os.getpid():
                yield pid, words

    monkeypatch.setattr(other_launches, "own_processes", ours)

    def begin(folder: str, *words: str, temporary: str = "") -> subprocess.Popen[bytes]:
        ray = f"--temp-dir={tmp_path}/{temporary}" if temporary else ""
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, folder, ray, *words, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(ray_backend.__file__).parents[2])},
        )
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in running:
        process.communicate()


def test_a_search_on_a_local_ray_is_named(start: Start) -> None:
    assert notice_of_others() == ""
    launch = start("results/toy", temporary="pixeltune-ray-abc")
    assert notice_of_others() == (
        f"Another launch trains on the CPUs of this machine: results/toy (process {launch.pid}). All get slower, and "
        "the speeds that they measure are too low; wait for its end, or let each search run fewer trials at a time "
        "with --max-concurrent N."
    )
    launch.communicate()
    assert notice_of_others() == ""


def test_a_training_without_ray_is_named(start: Start) -> None:
    first = start("results/one", "train", "one.toml")
    second = start("results/two", "rerun", "two/3")
    notice = notice_of_others()
    assert notice.startswith("2 other launches train on the CPUs of this machine: ")
    for name, process in (("one", first), ("two", second)):
        assert f"results/{name} (process {process.pid})" in notice


def test_a_search_in_object_storage_is_known_by_its_process(start: Start) -> None:
    launch = start("", temporary="pixeltune-ray-abc")
    assert f"of this machine: process {launch.pid}. " in notice_of_others()


def test_what_does_not_train_here_is_not_named(start: Start) -> None:
    start("results/on_a_cluster", "launch.py", "--address", "10.0.0.1:6379")
    start("results/compacted", "compact")
    start("results/a_ray_of_the_users", temporary="ray")
    start("", "train", "a_model.py")  # another program
    assert notice_of_others() == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process to CPUs")
def test_a_launch_on_other_cpus_is_not_named(start: Start) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    launch = start("results/toy", "train", "toy.toml")
    try:
        os.sched_setaffinity(0, cpus[:1])
        os.sched_setaffinity(launch.pid, cpus[1:])
        assert notice_of_others() == ""
        os.sched_setaffinity(launch.pid, cpus)
        assert "results/toy" in notice_of_others()
    finally:
        os.sched_setaffinity(0, cpus)


@pytest.mark.parametrize(("address", "said"), [(None, ["Another launch."]), ("10.0.0.1:6379", [])])
def test_it_is_printed_where_ray_starts_on_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, address: str | None, said: list[str]
) -> None:
    class Stopped(Exception):
        """Raised where Ray would start."""

    class Callback(ray_backend.SearchCallback):
        def say(self, text: str) -> None:
            heard.append(text)

    def connect(_address: str | None) -> None:
        raise Stopped

    heard: list[str] = []
    monkeypatch.setattr(ray_backend, "connect", connect)
    monkeypatch.setattr(ray_backend, "notice_of_others", lambda: "Another launch.")
    with pytest.raises(Stopped), RayBackend(address).start(None, None, Callback(), None):  # type: ignore[arg-type]
        pass
    assert heard == said
