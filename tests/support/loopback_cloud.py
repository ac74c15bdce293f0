"""AWS on 127.0.0.1 (moto), and a guard without which nothing may speak to it.

The addresses that moto gives its instances are real ones of others: sockets reach loopback alone here, and nothing that
could speak SSH is started.
"""

from __future__ import annotations

import copy
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pixeltune.cluster.aws_setup import prepare_aws
from tests.support.cluster_files import FOLDER, filled_in, write
from tests.support.object_storage import S3Server, in_environment, s3_server


class NotLoopbackError(AssertionError):
    """A connection that would have left this machine."""


@contextmanager
def loopback_only() -> Iterator[set[str]]:
    """Yields the hosts that sockets of this process connect to; all others are refused, and so is every new process."""
    seen: set[str] = set()

    def guarded(original: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                seen.add(address[0])
                if not address[0].startswith("127."):
                    raise NotLoopbackError(address[0])
            return original(self, address)

        return connect

    def refuse(*words: Any, **_options: Any) -> None:
        raise NotLoopbackError(f"a process was to be started: {words}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr("ray.autoscaler._private.updater.NodeUpdater.__init__", refuse)
        yield seen


@dataclass(frozen=True)
class Cloud:
    """server: what answers. connected_to: hosts that this process has spoken to since it is up."""

    server: S3Server
    connected_to: set[str]


@contextmanager
def new_cloud() -> Iterator[Cloud]:
    """AWS as new, found by the environment; guarded."""
    from moto.moto_api._internal.models import moto_api_backend
    from ray.autoscaler._private.aws import utils

    def forget() -> None:
        for cached in (utils.resource_cache, utils.client_cache):
            cached.cache_clear()

    with loopback_only() as connected_to, s3_server() as server, in_environment(server):
        moto_api_backend.reset()
        forget()
        try:
            yield Cloud(server, connected_to)
        finally:
            forget()


def client(name: str) -> Any:
    import boto3

    return boto3.client(name, region_name="us-east-1")


@dataclass(frozen=True)
class Account:
    """A prepared one. path: the cluster file, complete. config: its content. said: by `prepare`."""

    path: Path
    config: dict[str, Any]
    said: list[str]


def prepared(folder: Path) -> Account:
    """What a user does before the first `ray up`."""
    shutil.copytree(FOLDER / "policies", folder / "policies")
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder / "key.pub").write_bytes(public + b"\n")
    config = copy.deepcopy(filled_in("gpu"))
    config["auth"]["ssh_private_key"] = str(folder / "key")
    said = list(prepare_aws(write(folder, config)))
    group = next(line.split()[2].rstrip(":") for line in said if line.startswith("security group"))
    image = client("ec2").describe_images()["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        kind["node_config"] |= {"SecurityGroupIds": [group], "ImageId": image}
    return Account(write(folder, config), config, said)
