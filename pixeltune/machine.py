"""Facts about this machine: processors, memory, and the processes of its user.

On Linux they come from /proc and the system's own calls; elsewhere from psutil, where it is installed. A fact that
neither gives is None or empty: no number of a training depends on one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def usable_cpus() -> int:
    """Return how many processors this process may use, where the system says so; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cpu_name() -> str:
    """Return the model of the processor, or the architecture where the system does not name a model."""
    if sys.platform == "darwin":
        return _answer("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    lines = _lines("cpuinfo")
    if lines is None:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def total_memory() -> int | None:
    """Return the bytes of memory of the whole machine."""
    sysconf = getattr(os, "sysconf", None)
    if sysconf and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return int(sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE"))
    psutil = _psutil()
    return int(psutil.virtual_memory().total) if psutil else None


def free_memory() -> int | None:
    """Return the bytes of memory that new processes can have."""
    lines = _lines("meminfo")
    if lines is not None:
        return _kilobytes(lines, "MemAvailable")
    psutil = _psutil()
    return int(psutil.virtual_memory().available) if psutil else None


def peak_resident_memory() -> int | None:
    """Return the largest resident size of this process so far, in bytes."""
    lines = _lines("self/status")
    if lines is not None:
        return _kilobytes(lines, "VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    psutil = _psutil()
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None) if psutil else None  # Windows alone has it
    return None if peak is None else int(peak)


def own_processes() -> Iterator[tuple[int, list[str]]]:
    """Yield process number and command line of each process of this user."""
    if _PROC.is_dir():
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and is_own(entry):
                yield int(entry.name), command_line(int(entry.name))
        return
    psutil = _psutil()
    if psutil is None:
        return
    user = psutil.Process().username()
    for process in psutil.process_iter(["username", "cmdline"]):
        if process.info["username"] == user:
            yield process.pid, process.info["cmdline"] or []


def command_line(pid: int) -> list[str]:
    """Return the command line of a process; empty where there is none, or where it may not be read."""
    if _PROC.is_dir():
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:  # it has just ended
            return []
    psutil = _psutil()
    if psutil is None:
        return []
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def parent_of(pid: int) -> int | None:
    """Return the number of the process that started another; None where it has ended, or cannot be asked."""
    psutil = _psutil()
    if psutil is None:
        return None
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return None


def open_files(pid: int) -> list[str]:
    """Return the paths of the files that a process has open; empty where it has ended, or may not be asked."""
    psutil = _psutil()
    if psutil is None:
        return []
    try:
        return [file.path for file in psutil.Process(pid).open_files()]
    except (psutil.Error, OSError):
        return []


def is_on_same_cpus(pid: int) -> bool:
    """Return whether a process may use a processor that this one may use; true where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return True
    try:
        return not os.sched_getaffinity(0).isdisjoint(os.sched_getaffinity(pid))
    except OSError:  # it has ended
        return False


def is_own(path: Path) -> bool:
    """Return whether this user owns a file; always true on Windows, where a file has no such number."""
    try:
        return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _lines(name: str) -> list[str] | None:
    """Return the lines of a file of /proc; None where there is no such file."""
    try:
        return (_PROC / name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None


def _kilobytes(lines: list[str], name: str) -> int | None:
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _answer(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, encoding="utf-8", timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _psutil() -> Any:
    """Return psutil, which a machine with nothing but training packages may lack."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil
