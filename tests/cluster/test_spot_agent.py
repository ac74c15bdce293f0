"""The agent that hears of spot notices, against a metadata service on loopback that has every fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pixeltune.cluster import spot_agent
from pixeltune.cluster.spot_agent import Aws, Gcp, LocalNode, find_node, supervise, watch
from pixeltune.errors import SearchError
from tests.support.metadata_service import Answer, Metadata, serving


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    service = Metadata()
    monkeypatch.setattr(spot_agent, "_CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(spot_agent, "_FAILED_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(spot_agent, "_GCP_WAIT_SECONDS", 3)
    monkeypatch.setattr(Aws, "every", 0.01)
    with serving(service) as endpoint:
        monkeypatch.setenv(spot_agent.ENDPOINT, endpoint)
        yield service


def test_aws_is_asked_with_a_token_until_there_is_a_notice(metadata: Metadata) -> None:
    cloud = Aws()
    assert [cloud.deadline() for _ in range(3)] == [None] * 3
    assert metadata.asked[0] == "PUT /latest/api/token"
    assert len(metadata.tokens) == 1, "a token is kept"
    metadata.tokens.append("a newer one")  # by which the service refuses the one that is kept
    assert cloud.deadline() is None
    when = metadata.take_away(120)
    assert cloud.deadline() == when


def test_gcp_waits_for_a_change_and_sees_one_from_before(metadata: Metadata) -> None:
    cloud = Gcp()
    assert cloud.deadline() is None
    threading.Timer(0.2, metadata.preempt).start()
    start = time.time()
    deadline = cloud.deadline()
    assert deadline is not None
    assert 0.1 < time.time() - start < 2
    assert deadline - time.time() == pytest.approx(30, abs=1)
    assert Gcp().deadline() is not None, "one that was there before the agent"
    assert sum("wait_for_change" in asked for asked in metadata.asked) == 1


class Node(LocalNode):
    """A daemon that ends when it was drained, or after so many looks."""

    drained: float | None = None
    looks = 200

    @property
    def is_alive(self) -> bool:
        type(self).looks -= 1
        return self.drained is None and self.looks > 0


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(Node, "looks", 200)
    monkeypatch.setattr(Node, "drained", None)
    return Node(1, "abc", "127.0.0.1:1", "")


def _drain(node: LocalNode, deadline: float) -> None:
    Node.drained = deadline


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((500, "x"), "500"),
        ((503, ""), "503"),
        ((401, ""), "no token|401"),
        ((302, ""), "302"),
        (None, "Timeout|timed out|Remote"),
        ((200, "no json"), "JSONDecodeError|401"),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_service_that_fails_is_asked_again(
    fault: Answer, words: str, times: int, metadata: Metadata, node: Node
) -> None:
    said: list[str] = []
    metadata.faults = [fault] * times
    when = metadata.take_away(60)
    watch(Aws(), node, _drain, said.append)
    assert Node.drained == when
    problems = [line for line in said if "must answer" in line]
    assert all(re.search(words, line) for line in problems), problems
    assert problems or (fault, times) == ((200, "no json"), 1), "then that is its token, which is refused and renewed"


def test_where_nobody_listens_it_goes_on_asking_and_says_so_once(
    node: Node, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(spot_agent.ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setattr(Node, "looks", 20)
    said: list[str] = []
    watch(Gcp(), node, _drain, said.append)
    assert len(said) == 1
    assert "refused" in said[0]
    assert Node.drained is None


def test_ray_is_told_again_until_it_hears_and_not_after_the_deadline(metadata: Metadata, node: Node) -> None:
    tries: list[float] = []

    def deaf(node: LocalNode, deadline: float) -> None:
        tries.append(deadline)
        if len(tries) < 2:
            raise RuntimeError("GCS is away")
        _drain(node, deadline)

    metadata.take_away(60)
    said: list[str] = []
    watch(Aws(), node, deaf, said.append)
    assert len(tries) == 2
    assert any("GCS is away" in line for line in said)
    Node.drained, Node.looks = None, 3
    metadata.take_away(-60)
    watch(Aws(), node, deaf, said.append)
    assert len(tries) == 2, "too late"


@pytest.mark.parametrize("endpoint", ["http://192.0.2.1", "http://metadata.example.com:80", "http://localhost.evil"])
def test_no_other_service_than_the_clouds_own_or_loopback(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spot_agent.ENDPOINT, endpoint)
    for cloud in (Aws, Gcp):
        with pytest.raises(SearchError, match="must be an address of this machine"):
            cloud()
    monkeypatch.delenv(spot_agent.ENDPOINT)
    asked = [cloud()._service._host for cloud in (Aws, Gcp)]
    assert asked == ["169.254.169.254", "metadata.google.internal"]


def test_a_proxy_is_not_asked(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Aws().deadline() is None


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like Ray's daemon from outside, and waits."""
    words = ["/somewhere/raylet", "-c", "read wait", "--node_id=abcdef", "--gcs-address=127.0.0.1:1"]
    process = subprocess.Popen([*words, f"--log_dir={tmp_path}"], executable="/bin/sh", stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_node_of_this_machine_is_found_by_its_daemon(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    node = find_node("abcdef", seconds=10)
    assert node == LocalNode(raylet.pid, "abcdef", "127.0.0.1:1", str(tmp_path))
    assert node.is_alive
    raylet.kill()
    raylet.wait()
    assert not node.is_alive
    with pytest.raises(SearchError, match=r"one node of Ray must run .* but 0 do with the id abcdef"):
        find_node("abcdef", seconds=0)


def test_a_failed_agent_is_started_again_and_ends_with_the_node(
    raylet: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spot_agent, "_RESTART_SECONDS", 0.01)
    node = find_node("abcdef", seconds=10)
    starts = tmp_path / "starts"
    script = f"open({str(starts)!r}, 'a').write('x'); import sys; sys.exit(len(open({str(starts)!r}).read()) < 3)"
    supervise([sys.executable, "-c", script], node)
    assert starts.read_text() == "xxx", "twice it failed"
    threading.Timer(0.5, raylet.kill).start()
    waiter = tmp_path / "pid"
    script = f"import os, time; open({str(waiter)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    threading.Thread(target=raylet.wait, daemon=True).start()
    supervise([sys.executable, "-c", script], node)
    with pytest.raises(ProcessLookupError):
        os.kill(int(waiter.read_text()), 0)


def test_the_command_starts_it_in_the_background_with_its_log_among_rays(
    raylet: subprocess.Popen[bytes], tmp_path: Path, metadata: Metadata
) -> None:
    """Ray does not listen at this address: the notice is heard, and told again and again."""
    metadata.take_away(60)
    command = [sys.executable, "-m", "pixeltune", "cluster", "watch-spot", "aws", "--node", "abcdef"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    log = tmp_path / "pixeltune-spot.log"
    assert str(log) in done.stdout
    end = time.monotonic() + 60
    while "This machine is taken away in" not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    raylet.kill()
    raylet.wait()
    while any(b"pixeltune.cluster.spot_agent" in line for line in _command_lines()):
        assert time.monotonic() < end, "it ends with the node"
        time.sleep(0.1)


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if b"abcdef" in line:
                yield line
