"""Other launches of this user that train on the processors of this machine.

These are launches with a local Ray, which is known by its temporary folder, and trainings without Ray. A launch that
runs its trials on a cluster is none of them, and neither is a Ray whose launch has ended. Ray is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pixeltune.format import listed
from pixeltune.machine import is_on_same_cpus, open_files, own_processes, parent_of
from pixeltune.results.lock import LOCK_NAME, holder_of

LOCAL_RAY = "pixeltune-ray-"
"""How the name of the temporary folder of a local Ray begins."""

_WITHOUT_RAY = {"train", "rerun"}
"""Verbs that train in their own process."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class OtherLaunch:
    """A launch that runs. folder: of its search; "" where it is not known, as in object storage."""

    pid: int
    folder: str

    def __str__(self) -> str:
        return f"{self.folder} (process {self.pid})" if self.folder else f"process {self.pid}"


def notice_of_others() -> str:
    """Return one line that names the other launches on this machine's processors; "" without any."""
    others = [str(launch) for launch in other_launches()]
    if not others:
        return ""
    who = "Another launch trains" if len(others) == 1 else f"{len(others)} other launches train"
    return (
        f"{who} on the CPUs of this machine: {listed(others, _MOST_NAMED)}. All get slower, and the speeds that they "
        "measure are too low; wait for its end, or let each search run fewer trials at a time with --max-concurrent N."
    )


def other_launches() -> list[OtherLaunch]:
    """Return the launches of this user that train here, apart from this process, by process number."""
    processes = dict(own_processes())
    drivers = {parent_of(pid) for pid, words in processes.items() if _is_local_ray(words)}
    found = []
    for pid in sorted(processes):
        may_train = pid in drivers or not _WITHOUT_RAY.isdisjoint(processes[pid])
        if pid == os.getpid() or not may_train or not is_on_same_cpus(pid):
            continue
        folder = next(_held_folders(pid), "")
        if folder or pid in drivers:
            found.append(OtherLaunch(pid, folder))
    return found


def _is_local_ray(words: list[str]) -> bool:
    """Return whether a command line is that of the raylet of a launch's own Ray."""
    if not words or Path(words[0]).name != "raylet":
        return False
    folders = [Path(word.partition("=")[2]) for word in words if word.startswith(("--temp-dir=", "--temp_dir="))]
    return any(folder.name.startswith(LOCAL_RAY) for folder in folders)


def _held_folders(pid: int) -> Iterator[str]:
    """Yield the folders of searches that a process has locked, relative to the working directory if below it."""
    for path in map(Path, open_files(pid)):
        if path.name != LOCK_NAME:
            continue
        try:
            is_held = holder_of(path.parent.as_posix()) is not None  # in a container it has another process number
        except OSError:
            continue
        if is_held:
            below = path.parent.is_relative_to(Path.cwd())
            yield (path.parent.relative_to(Path.cwd()) if below else path.parent).as_posix()
