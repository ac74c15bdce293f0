"""A head with a dashboard and the token on loopback, and a cluster file that stands for it."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster_files import filled_in
from tests.support.launching import MARK, marked


@dataclass(frozen=True)
class StandingHead:
    """file: the cluster file to give; storage: that its nodes use. url: of the dashboard; address: of Ray.

    mark: in the environment of its processes.
    """

    file: Path
    storage: Path
    url: str
    address: str
    mark: str

    @contextmanager
    def way(self) -> Iterator[str]:
        """In place of a tunnel."""
        yield self.url


@contextmanager
def standing_head(folder: Path, *, cpus: int = 2) -> Iterator[StandingHead]:
    """A Ray of one node, in whose environment stands what `ray up` would have left there."""
    from ray.cluster_utils import Cluster

    storage, mark = folder / "results", uuid.uuid4().hex
    config = copy.deepcopy(filled_in("onprem"))
    text = yaml.safe_dump(config).replace("PIXELTUNE_STORAGE=/shared/results", f"PIXELTUNE_STORAGE={storage}")
    path = folder / "own.yaml"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("PIXELTUNE_STORAGE", str(storage))
        options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": True, "dashboard_host": "127.0.0.1"}
        options["dashboard_agent_listen_port"] = 0  # Ray's own is one for all
        cluster = Cluster(initialize_head=True, head_node_args=options)
        patch.delenv("PIXELTUNE_STORAGE")
        patch.delenv(MARK)
        try:
            yield StandingHead(path, storage, f"http://{cluster.head_node.webui_url}", cluster.address, mark)
        finally:
            cluster.shutdown()
            for pid in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
