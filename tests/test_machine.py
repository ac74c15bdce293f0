"""Facts about this machine, from /proc and, where that is missing, from psutil."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixeltune import machine


@pytest.fixture
def without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.delattr(os, "sysconf_names", raising=False)
    machine.cpu_name.cache_clear()


@pytest.fixture
def without_psutil(without_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")
def test_psutil_gives_the_same_memory_as_the_system(request: pytest.FixtureRequest) -> None:
    total, free = machine.total_memory(), machine.free_memory()
    assert total is not None
    assert free is not None
    request.getfixturevalue("without_proc")
    assert machine.total_memory() == pytest.approx(total, rel=0.02)
    assert machine.free_memory() == pytest.approx(free, abs=0.2 * total)


def test_processes_of_this_user_are_found_either_way(request: pytest.FixtureRequest) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code, "mark"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        for fixture in (None, "without_proc"):
            if fixture:
                request.getfixturevalue(fixture)
            assert machine.command_line(child.pid)[-1] == "mark"
            assert dict(machine.own_processes())[child.pid][-1] == "mark"
    finally:
        child.communicate()
    assert machine.command_line(child.pid) == []


@pytest.mark.usefixtures("without_psutil")
def test_without_proc_and_psutil_facts_are_unknown() -> None:
    assert machine.total_memory() is None
    assert machine.free_memory() is None
    assert machine.peak_resident_memory() is None
    assert list(machine.own_processes()) == []
    assert machine.command_line(os.getpid()) == []
    assert machine.usable_cpus() >= 1
    assert machine.cpu_name()


def test_a_system_without_user_numbers_owns_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.is_own(tmp_path)
    assert not machine.is_own(tmp_path / "missing")
    monkeypatch.delattr(os, "getuid", raising=False)
    assert machine.is_own(tmp_path / "missing")
