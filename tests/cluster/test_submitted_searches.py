"""Searches submitted to a real Ray head with the token on: followed, left, found again, stopped, gone on with.

In place of the SSH tunnel stands the dashboard's own address, through a proxy that can be cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixeltune.results.store import SearchStore
from tests.support.commands import Said, command
from tests.support.launching import write_search
from tests.support.standing_head import StandingHead, standing_head

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingHead]:
    with standing_head(tmp_path_factory.mktemp("head")) as one:
        yield one


class Wire:
    """A proxy on loopback. ways: how often a way through it was opened."""

    def __init__(self, url: str) -> None:
        self._to = int(url.rpartition(":")[2])
        self._pairs: list[socket.socket] = []
        self.ways = 0
        self._answers: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def answered(self, words: bytes) -> int:
        """How often these words have come back through it."""
        return b"".join(self._answers).count(words)

    def cut(self) -> None:
        """All connections, as when a laptop falls asleep."""
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    @contextmanager
    def way(self) -> Iterator[str]:
        """In place of a tunnel."""
        self.ways += 1
        yield f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            self._pairs += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, target, source is far), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
                if is_answer:
                    self._answers.append(content)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(head: StandingHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The laptop: a folder of its own, and the way to the head."""
    one = Wire(head.url)
    monkeypatch.setattr("pixeltune.cluster.ssh_tunnel.reach", lambda _path: one.way)
    (tmp_path / "laptop").mkdir()
    monkeypatch.chdir(tmp_path / "laptop")
    return one


def _once(condition: Callable[[], bool], act: Callable[[], None], seconds: float = 300) -> threading.Thread:
    """Act when the condition holds, beside what the test does."""

    def wait() -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.2)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def _ctrl_c(*, after: float = 0.0) -> None:
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGINT)


def _line(said: Said, start: str) -> str:
    found = [line for line in said.out.splitlines() if line.startswith(start)]
    assert len(found) == 1, said
    return found[0]


def test_a_search_from_anywhere_is_submitted_followed_and_gone_on_with(
    head: StandingHead, wire: Wire, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    search = write_search(tmp_path / "elsewhere", images=300)
    given = ("--search", str(search), "--trials", "2", "--cluster", str(head.file))
    first = command(*given)
    assert (first.code, first.err) == (0, ""), first
    assert _line(first, "Runs on the cluster") == (
        f"Runs on the cluster pixeltune, as --cluster {head.file} says; results: {head.storage}"
    )
    job = _line(first, "Submitted as job ").split()[3].rstrip(";")
    assert job.startswith("tiny-")
    assert f"Runs on the Ray cluster at {head.address}: it is the job {job} there." in first.out
    assert f"pixeltune cluster logs {head.file} {job}" in _line(first, "Come back: ")
    assert "Ended: all 2 trials are done." in first.out
    assert first.out.splitlines()[-1].endswith(f"ray down {head.file}")
    store = SearchStore(str(head.storage), "tiny")
    assert [row["status"] for row in store.attempts()] == ["finished"] * 2
    assert not list(Path.cwd().iterdir()), "nothing of it lies on the laptop"

    more = command(*given[:2], "--trials", "3", *given[4:])
    assert more.code == 0
    assert "2 trials done before" in more.out
    assert [row["status"] for row in store.attempts()] == ["finished"] * 3

    other = command(*given, "--set", "seed=1")
    assert other.code == 2, "the job's own exit code"
    assert "pixeltune: " in other.out
    assert "seed: 1" in other.out

    said = command("cluster", "status", str(head.file))
    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[0].startswith("head  ")
    assert lines[0].endswith("2 CPU")
    assert [line.split()[0] for line in lines[1:4]] == ["succeeded", "succeeded", "failed"]
    assert f"tiny in {head.storage}" in lines[1]

    late = command("cluster", "logs", str(head.file), job)
    assert late.code == 0
    assert "Ended: all 2 trials are done." in late.out


def test_left_found_again_stopped_and_gone_on_with(head: StandingHead, wire: Wire, tmp_path: Path) -> None:
    search = write_search(tmp_path, images=160_000, every=500, trials=2)
    store = SearchStore(str(head.storage), "slow")
    given = ("--search", str(search), "--name", "slow", "--cluster", str(head.file))
    has_begun = lambda: store.exists() and len(store.curves()) >= 2  # noqa: E731

    helper = _once(has_begun, _ctrl_c)
    left = command(*given)
    helper.join()
    assert left.code == 130, left
    job = _line(left, "Submitted as job ").split()[3].rstrip(";")
    assert f"Left: the job {job} goes on." in left.out
    assert f"ray down {head.file}" in left.out

    second = command(*given)
    assert second.code == 2
    assert f"the job {job} runs slow there; follow it" in second.err
    assert second.err.count("\n") == 1
    assert "running    " + job in command("cluster", "status", str(head.file)).out

    begin = b"Order-0 baseline"
    before, read = wire.ways, wire.answered(begin)
    helper = _once(lambda: wire.answered(begin) > read, wire.cut)  # not while the job is found
    ended = _once(lambda: wire.ways >= before + 3 and wire.answered(begin) > read + 1, lambda: _ctrl_c(after=3))
    followed = command("cluster", "logs", str(head.file))
    helper.join()
    ended.join()
    assert followed.code == 130
    assert wire.ways == before + 3, "to find the job, to follow it, and again"
    assert followed.out.count("Order-0 baseline") == 1, "nothing is said twice"
    assert followed.out.count("The job needs no connection; trying again.") == 1

    stopped = command("cluster", "stop", str(head.file))
    assert (stopped.code, stopped.err) == (0, ""), stopped
    assert f"The job {job} has ended (stopped)" in stopped.out
    rows = store.attempts()
    assert {row["status"] for row in rows} == {"interrupted"}, rows
    log = command("cluster", "logs", str(head.file), job)
    assert log.code == 130
    assert "Stopping: saving 2 trials, up to 8 s." in log.out
    nothing = command("cluster", "stop", str(head.file))
    assert nothing.code == 2
    assert "there must be such a running job" in nothing.err

    again = command(*given)
    assert again.code == 0, again
    assert [row["status"] for row in store.trials()] == ["finished"] * 2
    resumed = [row for row in store.curves() if row["attempt"] == 2]
    assert min(row["images_seen"] for row in resumed) > 500, "from the checkpoint, not from the begin"


def test_without_the_token_nothing_is_read_and_nothing_is_run(head: StandingHead) -> None:
    for path, content in (("/api/jobs/", None), ("/api/jobs/", json.dumps({"entrypoint": "true"}).encode())):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(head.url + path, data=content), timeout=10)
        assert refused.value.code == 401
