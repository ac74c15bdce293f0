"""The way to a head's dashboard: a real SSH over a pair of pipes, both ends of the tunnel on loopback."""

from __future__ import annotations

import contextlib
import copy
import http.server
import os
import pwd
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixeltune.cluster import ssh_tunnel
from pixeltune.cluster.ssh_tunnel import UnreachableError, find_head, reach, ssh_command
from pixeltune.errors import SearchError
from tests.support.cluster_files import FOLDER, filled_in, write
from tests.support.optional import find_program, require

SSHD = find_program("sshd") or "sshd"
needs_sshd = pytest.mark.needs("ssh", "ssh-keygen", "sshd", "ps")


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture
def dashboard() -> Iterator[int]:
    """The port of a server on loopback that answers with its own address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"asked by {self.client_address[0]}".encode())

        def log_message(self, *_words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def cluster(tmp_path: Path, dashboard: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A cluster file whose head is this machine: the proxy command is an sshd of our own, and no port is open."""
    require("ssh-keygen")
    monkeypatch.setenv("HOME", str(tmp_path))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it of root
    for name in ("key", "host"):
        _key(tmp_path / name)
    allowed = tmp_path / "allowed"
    allowed.write_text((tmp_path / "key.pub").read_text())
    lines = (
        f"HostKey {tmp_path}/host",
        f"AuthorizedKeysFile {allowed}",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "PermitRootLogin yes",
        "AllowTcpForwarding local",
    )
    (tmp_path / "sshd_config").write_text("\n".join(lines) + "\n")
    config = copy.deepcopy(filled_in("onprem"))
    config["auth"] = {
        "ssh_user": pwd.getpwuid(os.getuid()).pw_name,
        "ssh_private_key": str(tmp_path / "key"),
        "ssh_proxy_command": f"{SSHD} -i -f {tmp_path}/sshd_config",
    }
    starts = config["head_start_ray_commands"]
    starts[-1] = starts[-1].replace("--dashboard-host", f"--dashboard-port={dashboard} --dashboard-host")
    return config


def _ask(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _ours() -> list[str]:
    """Processes of tunnels that this process has started."""
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if line.startswith("ssh ")]


@needs_sshd
def test_what_listens_on_the_heads_loopback_is_reached_and_nothing_is_left(
    cluster: dict[str, Any], tmp_path: Path
) -> None:
    way = reach(write(tmp_path, cluster))
    for _ in range(2):  # the second time the host key is known
        with way() as url:
            assert url.startswith("http://127.0.0.1:")
            assert _ask(url) == "asked by 127.0.0.1"
            assert len(_ours()) == 1
        assert _ours() == []
        with pytest.raises(OSError, match="refused"):
            _ask(url)
    assert (tmp_path / ".ray" / "known_hosts").read_text().count("\n") == 1


@needs_sshd
def test_a_head_that_became_another_machine_is_not_given_the_token(cluster: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, cluster)
    with reach(path)():
        pass
    (tmp_path / "host").unlink()
    _key(tmp_path / "host")
    words = r"another than before.*ssh-keygen -f \S*/known_hosts -R 192\.0\.2\.1"
    with pytest.raises(UnreachableError, match=words), reach(path)():
        pass
    assert _ours() == []


@needs_sshd
def test_a_key_that_is_not_let_in_is_one_line(cluster: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "allowed").write_text("")
    with (
        pytest.raises(
            UnreachableError, match=r"by SSH, but 192\.0\.2\.1 is not \(.*denied.*is the cluster up \(ray up"
        ),
        reach(write(tmp_path, cluster))(),
    ):
        pass


@needs_sshd
def test_a_tunnel_ends_with_the_process_that_opened_it(cluster: dict[str, Any], tmp_path: Path) -> None:
    """However that ends: its standard input closes."""
    process = subprocess.Popen(
        [*ssh_command(cluster, "192.0.2.1", ssh_tunnel._free_port())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    time.sleep(0.5)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=20) == 0


@pytest.mark.needs("ssh", "ps")
def test_a_head_that_never_answers_is_given_up(
    cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster["auth"]["ssh_proxy_command"] = "sleep 60"
    monkeypatch.setattr(ssh_tunnel, "_OPEN_SECONDS", 0.5)
    with pytest.raises(UnreachableError, match="must answer within"), reach(write(tmp_path, cluster))():
        pass
    assert _ours() == []


def test_both_ends_are_on_loopback_and_nothing_waits_for_ever() -> None:
    command = ssh_command(filled_in("gpu"), "203.0.113.9", 40000)
    assert command[command.index("-L") + 1] == "127.0.0.1:40000:127.0.0.1:8265"
    assert command[-2:] == ["ubuntu@203.0.113.9", "cat"]
    assert command[command.index("-i") + 1] == str(Path("~/.ssh/pixeltune").expanduser())
    for option in (
        "BatchMode=yes",
        "ConnectTimeout=15",
        "ExitOnForwardFailure=yes",
        "ServerAliveInterval=15",
        "StrictHostKeyChecking=accept-new",
    ):
        assert option in command


def test_the_head_of_own_machines_stands_in_the_file() -> None:
    config = copy.deepcopy(filled_in("onprem"))
    assert find_head(config, "own.yaml") == "192.0.2.1"
    config["provider"]["external_head_ip"] = "198.51.100.1"
    assert find_head(config, "own.yaml") == "198.51.100.1"


def test_a_cluster_that_is_not_up_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cloud's library, or Ray, answers."""

    def none(_path: str) -> str:
        raise RuntimeError("Head node of cluster (pixeltune) not found!")

    monkeypatch.setattr("ray.autoscaler._private.commands.get_head_node_ip", none)
    path = write(tmp_path, filled_in("gpu"))
    with pytest.raises(SearchError, match=r"must be up, but Ray finds no head \(Head node.*\); ray up "), reach(path)():
        pass


def test_a_rayjob_has_no_head_to_submit_to() -> None:
    with pytest.raises(SearchError, match=r"rayjob.yaml is a RayJob; kubectl create -f"):
        reach(FOLDER / "rayjob.yaml")


def test_a_port_of_ours_is_free() -> None:
    port = ssh_tunnel._free_port()
    with contextlib.closing(socket.create_server(("127.0.0.1", port))):
        pass


@pytest.mark.parametrize("name", ["gpu", "gcp", "onprem"])
def test_a_file_that_is_not_filled_in_leads_nowhere(name: str) -> None:
    with pytest.raises(SearchError, match=rf"{name}\.yaml is not as it must be: .* must be filled in: .*cluster check"):
        reach(FOLDER / f"{name}.yaml")()
