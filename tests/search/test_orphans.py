"""A process whose parent is gone, waited for or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_CHILD = (
    "import time; from pixeltune.tune.preemption import end_with_parent; {0}print('up', flush=True); time.sleep(60)"
)
_PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


def _outlives(watch: str, seconds: float) -> bool:
    """Whether the child of a killed parent, for which nobody waits meanwhile, is there after so long."""
    command = [sys.executable, "-c", _PARENT, _CHILD.format(watch)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        os.kill(parent.pid, signal.SIGKILL)
        end = time.monotonic() + seconds
        while (alive := _is_alive(child)) and time.monotonic() < end:
            time.sleep(0.05)
        assert Path(f"/proc/{parent.pid}").exists(), "as long as nobody has waited for it"
        if alive:
            os.kill(child, signal.SIGKILL)
        return alive
    finally:
        parent.communicate()


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_it_ends_with_a_parent_for_which_nobody_waits() -> None:
    assert not _outlives("end_with_parent(); end_with_parent(); ", 30)
    assert _outlives("", 1), "the test can fail"
