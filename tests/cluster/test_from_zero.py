"""A search that begins on a head without a place, on a Ray that starts workers when trials wait for them.

The workers are Ray's own imitation of machines: raylets of this one, which its autoscaler starts as it would those of a
cloud. Both autoscalers: the newer one of the clouds' files, the older one of `onprem.yaml`.
"""

from __future__ import annotations

import contextlib
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
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pixeltune.tune.ray_address import VARIABLE
from tests.support.harm import Before, Harm, count_harm
from tests.support.launching import MARK, launches, marked, store_in
from tests.support.noop import Orders, instruct, noop_space
from tests.support.own_machines import wait_until
from tests.support.ray_faults import SEARCH

pytestmark = [pytest.mark.slow, pytest.mark.ray]

HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""By which Ray's imitation knows the head."""


@contextmanager
def cluster_of_none(folder: Path, *, newer: bool) -> Iterator[dict[str, str]]:
    """A head without CPUs, and up to two workers of one CPU each; yields the environment of a shell on the head."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    from ray._private.services import get_node_ip_address

    address = f"{get_node_ip_address()}:{port}"
    config = {
        "cluster_name": "from-zero",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": {  # "external", for Ray's wheel lacks the file of defaults that its own name for it would read
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,  # they share the real one
            "disable_node_updaters": True,  # there is nobody to speak SSH to
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{role}setup_commands": [] for role in ("", "head_", "worker_")},
        **{f"{role}_start_ray_commands": [] for role in ("head", "worker")},
        "initialization_commands": [],
    }
    path = folder / "from-zero.yaml"
    path.write_text(yaml.safe_dump(config))
    temporary, mark = tempfile.mkdtemp(prefix="pt-"), uuid.uuid4().hex
    environment = os.environ | {
        MARK: mark,
        VARIABLE: str(path),
        "RAY_TMPDIR": temporary,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    of_ray = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": str(int(newer))}
    of_ray |= {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=0"]
    command += ["--num-gpus=0", f"--autoscaling-config={path}", "--dashboard-host=127.0.0.1"]
    try:
        done = subprocess.run(command, env=environment | of_ray, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        yield environment
    finally:
        _end(mark)
        shutil.rmtree(temporary, ignore_errors=True)


def _end(mark: str) -> None:
    while found := marked(mark):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def _raylets(mark: str) -> int:
    return sum("raylet/raylet" in words.split(" ")[0] for words in marked(mark).values())


@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
def test_workers_come_and_every_trial_is_done(newer: bool, tmp_path: Path) -> None:
    search = tmp_path / "tiny.py"
    search.write_text(SEARCH.format(trials=4, images=400), encoding="utf-8")
    storage = tmp_path / "r"
    instruct(storage, Orders(seconds=2.0))
    with cluster_of_none(tmp_path, newer=newer) as environment, launches(storage) as launch:
        mark = environment[MARK]
        wait_until(lambda: _raylets(mark) == 1, 30, "the head alone")
        variables = {name: environment[name] for name in (VARIABLE, "RAY_TMPDIR", "RAY_AUTH_MODE")}
        run = launch(search, program="tests/support/noop.py", **variables)
        assert run.wait(400) == 0, run.out + run.err
        assert run.err == ""
        wait_until(lambda: _raylets(mark) == 3, 30, "the head and two workers")  # one that forks counts twice
    lines = run.out.splitlines()
    assert lines[0].startswith("Runs on the Ray cluster at ")
    assert lines[0].endswith("this machine is a node of it, by `ray start`.")
    assert "The cluster has 0 workers, and starts up to 2 more as trials need them." in lines
    assert "2 trials at a time, each 1 CPU" in lines
    assert any(line.startswith("The cluster from-zero runs on until you end it") for line in lines)
    harm = Harm()
    count_harm(harm, store_in(storage), noop_space(trials=4, images=400, stop=False), before=Before([], []))
    assert harm.words == []
