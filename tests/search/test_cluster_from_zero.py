"""A search on a cluster that has a head and no worker: Ray's autoscaler starts what the cluster file allows.

Its provider of machines is Ray's own imitation, whose machines are processes of this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import MARK, ends, launches, marked, write_search

from pixeltune.search.cluster.running import VARIABLE

pytestmark = pytest.mark.slow

MOST = 2
HEAD_ID = "f" * 56
"""By which Ray's imitation knows its head."""


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: dict[str, str]


def _file(folder: str) -> Path:
    path = Path(folder) / "cluster.json"
    worker = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}}
    config = {
        "cluster_name": "imitated",
        "metadata": {"file": "imitated.yaml", "dollars_per_hour": {"head": 0.1, "worker": 1.0}},
        "max_workers": MOST,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
        },
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "min_workers": 0, "max_workers": MOST},
        },
        "auth": {},
        "docker": {},
        "upscaling_speed": 1.0,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    temporary = tempfile.mkdtemp(prefix="px-", dir="/tmp")
    path = _file(temporary)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mark = uuid.uuid4().hex
    secrets = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
    environment = (
        os.environ
        | secrets
        | {
            MARK: mark,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    )
    start = ["start", "--head", "--num-cpus=0", "--object-store-memory=100000000", f"--port={port}"]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    options = [f"--autoscaling-config={path}", f"--temp-dir={temporary}/ray", "--node-ip-address=127.0.0.1"]
    try:
        subprocess.run([*ray, *start, *options], env=environment, check=True, timeout=120, capture_output=True)
        yield Cluster(f"127.0.0.1:{port}", {**secrets, VARIABLE: str(path)})
    finally:
        while left := marked(mark):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(temporary, ignore_errors=True)


def test_a_search_starts_the_workers_that_it_needs(cluster: Cluster, tmp_path: Path) -> None:
    search = write_search(tmp_path, images=200, trials=4)
    with launches(tmp_path / "results") as launch:
        one = launch(search, "--address", cluster.address, **cluster.environment)
        assert one.wait(400) == 0, one.out + one.err
        assert f"The cluster has 0 workers, and starts up to {MOST} more as trials need them." in one.out
        assert "ray down imitated.yaml" in one.out
        assert "$0.10 an hour ($2.40 a day) for its head, and at most $2.10 with all its workers" in one.out
    assert set(ends(tmp_path / "results").values()) == {"finished"}
    assert len(ends(tmp_path / "results")) == 4
