"""What somebody tries who reaches a cluster of ours, and has its token, another, or none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.support.hosts import Host
from tests.support.own_machines import HEAD_PORT, python_on

WRONG = "f" * 64
DASHBOARD = 8265

_ASK_DASHBOARD = """
import json, sys, urllib.error, urllib.request
token, asked = json.loads(sys.argv[1])
for method, path, body in asked:
    request = urllib.request.Request("http://127.0.0.1:8265" + path, method=method, data=body.encode() or None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            print(json.dumps([method, path, answer.status]))
    except urllib.error.HTTPError as error:
        print(json.dumps([method, path, error.code]))
"""

_ASK_PORTS = """
import json, sys, urllib.error, urllib.request
import grpc

METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVGet", "JobInfoGcsService/GetAllJobInfo",
    "ActorInfoGcsService/GetAllActorInfo", "NodeManagerService/GetNodeStats", "ObjectManagerService/Pull",
    "CoreWorkerService/PushTask", "ReporterService/ReportOCMetrics", "LogService/ListLogs", "RayletDriver/Init",
    "RayletDriver/ClusterInfo", "RayletLogStreamer/Logstream",
)
for place in sys.argv[1:]:
    answers = {}
    try:
        with urllib.request.urlopen("http://" + place + "/", timeout=5) as answer:
            answers["http"] = answer.status
    except urllib.error.HTTPError as error:
        answers["http"] = error.code
    except Exception as error:
        answers["http"] = type(error).__name__
    with grpc.insecure_channel(place) as channel:
        for method in METHODS:
            try:
                channel.unary_unary("/ray.rpc." + method)(b"", timeout=5)
                answers[method] = "OK"
            except grpc.RpcError as error:
                answers[method] = error.code().name
                if answers[method] == "UNAVAILABLE":  # it speaks no gRPC
                    break
    print(json.dumps([place, answers]))
"""

_ASK_GCS = """
import sys
from ray._raylet import GcsClient
from ray.util.state import list_nodes

address = sys.argv[1]
for what, ask in {
    "kv": lambda: GcsClient(address=address).internal_kv_keys(b"", namespace=None),
    "state": lambda: list_nodes(address=address, timeout=10),
}.items():
    try:
        print(what, "got", len(ask()))
    except Exception as error:
        print(what, "refused", type(error).__name__)
"""

_CONNECT = """
import ray
try:
    ray.init("auto", log_to_driver=False)
    print("connected", sum(node["Alive"] for node in ray.nodes()))
except Exception as error:
    print("refused", type(error).__name__)
"""


@dataclass(frozen=True)
class Listener:
    """Of a TCP port. where: "loopback", "network" (the host's own address alone) or "everywhere"."""

    port: int
    where: str
    process: str


def listeners(host: Host) -> list[Listener]:
    """All of a host but its SSH server."""
    found = []
    for line in host.run("ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header").stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").removeprefix("::ffff:")
        where = {host.address: "network", "127.0.0.1": "loopback", "::1": "loopback"}.get(address, "everywhere")
        name = re.search(r'\(\("([^"]+)"', line)
        found.append(Listener(int(port), where, name[1] if name else "?"))
    return [one for one in found if one.process != "sshd"]


def ask_dashboard(head: Host, token: str, asked: list[tuple[str, str, str]]) -> dict[str, int]:
    """HTTP status by method and path, asked on the head itself: elsewhere nothing listens."""
    told = python_on(head, _ASK_DASHBOARD, json.dumps([token, asked]))
    return {f"{method} {path}": status for method, path, status in map(json.loads, told.splitlines())}


def ask_ports(asking: Host, places: list[str]) -> dict[str, dict[str, Any]]:
    """What ports answer, by HTTP and by Ray's own calls, to somebody without a token."""
    told = python_on(asking, _ASK_PORTS, *places, seconds=300)
    return dict(json.loads(line) for line in told.splitlines() if line.startswith("["))


def ask_gcs(asking: Host, head: Host, **environment: str) -> list[str]:
    """What Ray's own client gets from the head's store, and from the State API, which answers on the head alone."""
    told = python_on(asking, _ASK_GCS, f"{head.address}:{HEAD_PORT}", **environment)
    return [line for line in told.splitlines() if line.startswith(("kv ", "state "))]


def connect(asking: Host, **environment: str) -> str:
    """What comes of `ray.init` on a host of the cluster; and how many of its nodes are alive."""
    told = python_on(asking, _CONNECT, RAY_USAGE_STATS_ENABLED="0", **environment)
    return told.strip().splitlines()[-1]
