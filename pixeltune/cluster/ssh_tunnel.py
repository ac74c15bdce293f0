"""An SSH tunnel from our loopback to the dashboard of a cluster's head, which listens only on the head's loopback.

`ray up`'s file has user and key. The head's host key is stored next to Ray's token at the first connection and must
not change (Ray's own commands check none), because the token that allows running code on the cluster goes through here.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from pixeltune.cluster.checks_common import to_fill_in
from pixeltune.cluster.cluster_file import Config, Kind, at, kind_of, read_cluster_file
from pixeltune.errors import SearchError
from pixeltune.files import expand_home

DashboardConnection = Callable[[], AbstractContextManager[str]]
"""Opens a connection to a dashboard and yields its URL. May be called again when the connection has broken."""


class UnreachableError(SearchError):
    """The connection to the dashboard failed or broke; jobs on the cluster continue."""


_DASHBOARD = 8265
_CONNECT_SECONDS = 15
_ALIVE_SECONDS, _ALIVE_TIMES = 15, 3
_OPEN_SECONDS = 45.0
"""Time for the tunnel to open: name, connection, keys and a busy head."""


def reach(path: str | Path) -> DashboardConnection:
    """Return a connection to the head of the cluster that `ray up PATH` started."""
    config = read_cluster_file(path)
    if kind_of(config, path) is Kind.RAYJOB:
        raise SearchError(f"a search is submitted to a cluster of `ray up`, but {path} is a RayJob; kubectl create -f")

    @cache
    def head() -> str:
        return find_head(config, path)

    return lambda: _tunnel(config, path, head())


def find_head(config: Config, path: str | Path) -> str:
    """Return the head's address as seen from here; SearchError if no cluster of this file is up."""
    for finding in to_fill_in(config):
        raise SearchError(f"{path} is not as it must be: {finding}; pixeltune cluster check {path}")
    if at(config, "provider", "type") == Kind.LOCAL:  # Ray knows it only while `ray up`'s state file exists
        return str(at(config, "provider", "external_head_ip") or at(config, "provider", "head_ip"))
    from ray.autoscaler._private.commands import get_head_node_ip

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        found = get_head_node_ip(str(expand_home(path)))
    except Exception as error:  # of the cloud's own library, or of Ray's
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise SearchError(f"the cluster of {path} must be up, but Ray finds no head ({why}); ray up {path}") from None
    if not found:
        raise SearchError(f"the head of {path} must have an address, but has none yet; wait for `ray up {path}`")
    return str(found)


@contextmanager
def _tunnel(config: Config, path: str | Path, head: str) -> Iterator[str]:
    """Open a tunnel whose remote end is a `cat` that ends whenever this process does, so that no tunnel is left."""
    port = _free_port()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            ssh_command(config, head, port),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us
        )
        try:
            _wait_until_open(process, port, errors, path, head)
            yield f"http://127.0.0.1:{port}"
        finally:
            assert process.stdin is not None, "it was asked for"
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.terminate()
            process.wait()


def ssh_command(config: Config, head: str, port: int) -> list[str]:
    """Return the command that forwards our port to the head's dashboard, both on loopback."""
    user, key, proxy = (at(config, "auth", word) for word in ("ssh_user", "ssh_private_key", "ssh_proxy_command"))
    known = _known_hosts()
    known.parent.mkdir(mode=0o700, exist_ok=True)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": _CONNECT_SECONDS,
        "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes" if key else "no",
        "LogLevel": "ERROR",
        "ServerAliveCountMax": _ALIVE_TIMES,
        "ServerAliveInterval": _ALIVE_SECONDS,
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": f'"{known}" ~/.ssh/known_hosts',
    }
    if proxy:
        options["ProxyCommand"] = proxy
    return [
        "ssh",
        "-T",
        *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
        *(("-i", str(expand_home(key))) if key else ()),
        *("-L", f"127.0.0.1:{port}:127.0.0.1:{_dashboard_port(config)}"),
        f"{user}@{head}" if user else head,
        "cat",
    ]


def _known_hosts() -> Path:
    return expand_home("~/.ray/known_hosts")


def _dashboard_port(config: Config) -> int:
    starts = " ".join(config.get("head_start_ray_commands") or [])
    found = re.search(r"--dashboard-port[= ](\d+)", starts)
    return int(found[1]) if found else _DASHBOARD


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_until_open(
    process: subprocess.Popen[bytes], port: int, errors: IO[bytes], path: str | Path, head: str
) -> None:
    end = time.monotonic() + _OPEN_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise UnreachableError(
                f"the head of {path} must be reached by SSH, but {head} is not ({_shown(lines, head)}); "
                f"is the cluster up (ray up {path}), is your address let in?"
            )
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise UnreachableError(f"the head of {path} must answer within {_OPEN_SECONDS:.0f} s, but {head} has not by SSH")


def _shown(lines: list[str], head: str) -> str:
    if any("Host key verification failed" in line for line in lines):
        return f"its host key is another than before; if it is a new machine: ssh-keygen -f {_known_hosts()} -R {head}"
    return lines[-1] if lines else "it closed the connection"
