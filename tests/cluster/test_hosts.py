"""Hosts made of namespaces: apart from this machine and from each other, and gone with whoever made them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hosts import HOME, Network, network, why_not
from tests.support.own_machines import KEPT, ROOT, python_on, wait_until

pytestmark = pytest.mark.slow

_REACH = "import socket, sys; socket.create_connection((sys.argv[1], 22), 3); print('reached')"
_MAKE = """
import sys
from pathlib import Path
from tests.support.hosts import network
with network(Path(sys.argv[1]), ("a", "b")) as net:
    print(*(host.pid for host in net.hosts.values()), flush=True)
    net.hosts["b"].run("sleep", "1000")
"""


@pytest.fixture(autouse=True)
def _permitted() -> None:
    if why_not():
        pytest.skip(why_not())


def _reaches(net: Network, name: str, other: str) -> bool:
    return "reached" in python_on(net.hosts[name], _REACH, net.hosts[other].address)


def test_a_host_has_its_own_files_and_sees_what_is_shared(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    with network(tmp_path, ("a", "b"), keep=[*KEPT, tmp_path / "shared"]) as net:
        first, second = net.hosts.values()
        for place in (str(HOME), "/tmp", "/dev/shm", "/run", str(tmp_path / "shared")):
            assert first.run("touch", f"{place}/pixeltune-mark").returncode == 0
            seen = second.run("test", "-e", f"{place}/pixeltune-mark").returncode == 0
            assert seen == (place == str(tmp_path / "shared"))
            assert Path(place, "pixeltune-mark").exists() == seen
        assert [host.run("hostname").stdout for host in (first, second)] == ["a\n", "b\n"]
        login = ("ssh", "-o", "StrictHostKeyChecking=no", "-i", str(HOME / ".ssh/pixeltune"), second.address)
        assert first.run(*login, "hostname").stdout.splitlines()[-1] == "b"
        assert second.run(*login, "-o", "BatchMode=yes", "hostname").returncode == 255, "only the first one has the key"


def test_a_cable_is_pulled_and_put_in_again(tmp_path: Path) -> None:
    with network(tmp_path, ("a", "b", "c"), keep=KEPT) as net:
        net.cut("b", off=True)
        assert not _reaches(net, "c", "b")
        assert not _reaches(net, "b", "c")
        assert _reaches(net, "b", "b"), "what runs there goes on"
        net.cut("b", off=False)
        wait_until(lambda: _reaches(net, "c", "b"), 10, "a connection")


def test_two_networks_do_not_meet(tmp_path: Path) -> None:
    with network(tmp_path / "x", ("a", "b"), keep=KEPT) as one, network(tmp_path / "y", ("a", "c"), keep=KEPT) as other:
        before = {(host.name, host.address) for host in one.hosts.values()}
        assert before & {(host.name, host.address) for host in other.hosts.values()}, "the same addresses"
        other.cut("c", off=True)
        assert _reaches(one, "a", "b")
        assert not _reaches(other, "a", "c")


def test_nothing_is_left_of_hosts_whose_maker_was_killed(tmp_path: Path) -> None:
    words = (sys.executable, "-c", _MAKE, str(tmp_path))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as maker:
        assert maker.stdout is not None
        pids = [int(pid) for pid in maker.stdout.readline().split()]
        assert len(pids) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        maker.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30, "their end")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert "switch" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
