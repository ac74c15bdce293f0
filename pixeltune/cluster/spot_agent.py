"""An agent that drains this node before its spot machine is taken away: its trials save and continue elsewhere.

It runs next to Ray on each worker, started by the cluster file (`pixeltune cluster watch-spot aws`). It queries only
the machine's own metadata service; it needs no Ray until there is a notice, and ends with Ray's daemon on this machine.
A parent process restarts it after any failure.

AWS: `spot/instance-action` is 404 until two minutes before the end. Recommendations to rebalance are ignored: they are
sent for machines that may stay for hours. Google Cloud: `preempted` is TRUE half a minute before the end.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pixeltune.errors import SearchError
from pixeltune.machine import command_line, own_processes

ENDPOINT = "PIXELTUNE_METADATA_ENDPOINT"
"""Environment variable for tests: another metadata service, of this machine alone."""

_AWS, _GCP = "http://169.254.169.254", "http://metadata.google.internal"
_CONNECT_SECONDS = 2.0
_AWS_EVERY_SECONDS = 5.0
_AWS_TOKEN_SECONDS = 21_600
_GCP_WAIT_SECONDS = 60
_GCP_NOTICE_SECONDS = 30.0
_FAILED_EVERY_SECONDS = 5.0
_DRAIN_SECONDS = 5.0
"""Timeout of one attempt to notify Ray."""
_RAY_SECONDS = 60.0
"""How long to wait for Ray's daemon, which may start after `ray start` returns."""
_RESTART_SECONDS = 5.0

Say = Callable[[str], None]


class Cloud(Protocol):
    """A metadata service. every: seconds between two requests."""

    every: float

    def deadline(self) -> float | None:
        """Return the time stamp at which the machine is taken away; None without a notice. OSError, ValueError."""


class Service:
    """Plain HTTP to a metadata service: no proxy, no redirection, with a timeout."""

    def __init__(self, endpoint: str) -> None:
        address = urlsplit(os.environ.get(ENDPOINT) or endpoint)
        if ENDPOINT in os.environ and not _is_loopback(address.hostname or ""):
            raise SearchError(f"{ENDPOINT} must be an address of this machine (127.0.0.1), but is {address.hostname}")
        self._host, self._port = address.hostname or "", address.port or 80

    def ask(self, method: str, path: str, headers: dict[str, str], *, seconds: float) -> tuple[int, str, str | None]:
        """Return status, body and ETag; OSError if it does not answer in time."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(10_000).decode("utf-8", "replace"), answer.headers.get("ETag")
        except http.client.HTTPException as error:
            raise OSError(f"it does not speak HTTP ({error!r})") from error
        finally:
            connection.close()


class Aws:
    """IMDSv2: requests with a token that is renewed when it is refused."""

    every = _AWS_EVERY_SECONDS

    def __init__(self) -> None:
        self._service = Service(_AWS)
        self._token = ""

    def deadline(self) -> float | None:
        """Return the time in the notice."""
        status, body = self._ask()
        if status == 401:
            self._token = ""
            status, body = self._ask()
        if status == 404:
            return None
        if status != 200:
            raise OSError(f"it answers {status}")
        notice = json.loads(body)
        return datetime.fromisoformat(str(notice["time"])).timestamp()

    def _ask(self) -> tuple[int, str]:
        if not self._token:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_SECONDS)}
            status, body, _ = self._service.ask("PUT", "/latest/api/token", wanted, seconds=_CONNECT_SECONDS)
            if status != 200:
                raise OSError(f"it gives no token ({status})")
            self._token = body
        headers = {"X-aws-ec2-metadata-token": self._token}
        path = "/latest/meta-data/spot/instance-action"
        status, body, _ = self._service.ask("GET", path, headers, seconds=_CONNECT_SECONDS)
        return status, body


class Gcp:
    """A request that is answered when the value changes; the first one is answered at once."""

    every = 0.0

    def __init__(self) -> None:
        self._service = Service(_GCP)
        self._tag: str | None = None

    def deadline(self) -> float | None:
        """Return half a minute after the first TRUE."""
        path, seconds = "/computeMetadata/v1/instance/preempted", _CONNECT_SECONDS
        if self._tag is not None:
            path += f"?wait_for_change=true&last_etag={self._tag}&timeout_sec={_GCP_WAIT_SECONDS}"
            seconds += 1.25 * _GCP_WAIT_SECONDS
        status, body, tag = self._service.ask("GET", path, {"Metadata-Flavor": "Google"}, seconds=seconds)
        if status != 200:
            self._tag = None
            raise OSError(f"it answers {status}")
        if body.strip() == "TRUE":
            return time.time() + _GCP_NOTICE_SECONDS
        if tag is None:
            raise OSError("it gives no ETag, without which nothing can be waited for")
        self._tag = tag
        return None


CLOUDS: dict[str, Callable[[], Cloud]] = {"aws": Aws, "gcp": Gcp}


@dataclass(frozen=True)
class LocalNode:
    """Ray's daemon on this machine. node, gcs: its id and the cluster's address. logs: its log folder."""

    pid: int
    node: str
    gcs: str
    logs: str

    @property
    def is_alive(self) -> bool:
        """Return whether the same process still runs."""
        return _options(command_line(self.pid)).get("node_id") == self.node


def find_node(wanted: str | None = None, *, seconds: float = _RAY_SECONDS) -> LocalNode:
    """Return the daemon of this user's Ray, or of the node `wanted` among several; SearchError without one."""
    end = time.monotonic() + seconds
    while True:
        found = [node for node in _local_nodes() if wanted in (None, node.node)]
        if len(found) == 1:
            return found[0]
        if time.monotonic() > end:
            raise SearchError(
                f"one node of Ray must run on this machine, but {len(found)} do"
                f"{f' with the id {wanted}' if wanted else ''}; start it with `ray start`, or name it with --node"
            )
        time.sleep(0.5)


def watch(cloud: Cloud, node: LocalNode, drain: Callable[[LocalNode, float], None], say: Say) -> None:
    """Poll until there is a notice, then drain, and return when the node has ended."""
    failed = ""
    while node.is_alive:
        try:
            deadline = cloud.deadline()
        except (OSError, ValueError, KeyError, TypeError) as error:
            if failed != (failed := f"{type(error).__name__}: {error}"):
                say(f"The metadata service must answer, but: {failed}")
            time.sleep(_FAILED_EVERY_SECONDS)
            continue
        failed = ""
        if deadline is None:
            time.sleep(cloud.every)
            continue
        say(f"This machine is taken away in {deadline - time.time():.0f} s: its node is drained.")
        _drain_in_time(node, deadline, drain, say)
        while node.is_alive:
            time.sleep(1.0)


def _drain_in_time(node: LocalNode, deadline: float, drain: Callable[[LocalNode, float], None], say: Say) -> None:
    """Drain the node, retrying until it is done or the deadline is over."""
    while node.is_alive and time.time() < deadline:
        try:
            drain(node, deadline)
        except Exception as error:  # of many kinds, depending on what does not answer
            say(f"Ray could not be notified yet: {' '.join(str(error).split())[:300]}")
            time.sleep(1.0)
        else:
            say("Ray knows; its trials save and go on elsewhere.")
            return


def drain_node(node: LocalNode, deadline: float) -> None:
    """Notify the cluster's head, which starts nothing more on the node; the node's trials see that."""
    from pixeltune.tune.ray_session import set_environment

    set_environment(node.gcs)
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    is_accepted, why_not = GcsClient(address=node.gcs).drain_node(
        node.node, reason, "spot notice", int(1000 * deadline), timeout=_DRAIN_SECONDS
    )
    if not is_accepted:
        raise SearchError(f"the node must be drained, but Ray refuses: {why_not}")


def start_in_background(cloud: str, wanted: str | None) -> LocalNode:
    """Start a process that outlives this shell, with its log among Ray's."""
    node = find_node(wanted)
    with Path(node.logs, "pixeltune-spot.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", __name__, cloud, "--node", node.node, "--supervise"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return node


def supervise(command: Sequence[str], node: LocalNode) -> None:
    """Restart the agent each time that it fails, until the node ends."""
    while node.is_alive:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while node.is_alive:
            with suppress(subprocess.TimeoutExpired):
                if child.wait(timeout=1.0) == 0:
                    return
                break
        child.terminate()
        child.wait()
        if node.is_alive:
            time.sleep(_RESTART_SECONDS)


def main(words: Sequence[str] | None = None) -> int:
    """Run the agent's own processes; users run `pixeltune cluster watch-spot`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cloud", choices=CLOUDS)
    parser.add_argument("--node")
    parser.add_argument("--supervise", action="store_true")
    options = parser.parse_args(words)
    node = find_node(options.node)
    if options.supervise:
        supervise([sys.executable, "-m", __spec__.name, options.cloud, "--node", node.node], node)
    else:
        watch(CLOUDS[options.cloud](), node, drain_node, _log)
    return 0


def _log(line: str) -> None:
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}", flush=True)


def _local_nodes() -> list[LocalNode]:
    """Return this user's nodes, from the command lines of their daemons."""
    found = []
    for pid, words in own_processes():
        options = _options(words)
        if "node_id" in options and "gcs-address" in options:
            found.append(LocalNode(pid, options["node_id"], options["gcs-address"], options["log_dir"]))
    return found


def _options(words: Sequence[str]) -> dict[str, str]:
    """Return the options of a raylet's command line; empty for any other process."""
    if not words or Path(words[0]).name != "raylet":
        return {}
    return dict(word.removeprefix("--").partition("=")[::2] for word in words[1:] if word.startswith("--"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
