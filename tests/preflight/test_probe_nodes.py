"""The nodes of a real cluster are asked for their facts; two of them on this machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune.errors import SearchError
from pixeltune.space import Resources
from pixeltune.tune.ray_session import connect

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    try:
        cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def test_a_cluster_of_two_nodes_is_looked_at(address: str, tmp_path: Path) -> None:
    with connect(address) as nodes:
        from pixeltune.preflight.probe_nodes import ask_state_api, look_at_nodes, preflight

        assert sorted(node["CPU"] for node in nodes) == [1.0, 2.0]
        assert ask_state_api() == ""
        config = {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
        rows = look_at_nodes(str(tmp_path), config=config)
        assert len(rows) == 2
        assert {cell.verdict for row in rows for cell in row.cells.values()} == {"ok", "skipped"}
        assert len({row.cells["data"].found for row in rows}) == 1
        assert rows[0].cells["storage"].found == "shared"
        assert preflight(nodes, Resources(workers=2), str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == [], "their marks are removed"


def _raise_at_first(folder: str, times: int) -> str:
    """Raise as in a process whose folder was removed, for the given number of calls."""
    calls = Path(folder, "calls")
    calls.write_text(calls.read_text() + f"{os.getpid()}\n" if calls.exists() else f"{os.getpid()}\n")
    if len(calls.read_text().split()) <= times:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return "here"


def test_a_node_whose_process_cannot_run_is_asked_again_in_others(address: str, tmp_path: Path) -> None:
    with connect(address):
        import ray

        from pixeltune.preflight.probe_nodes import _answers, _Question

        node = ray.nodes()[0]
        assert _answers([_Question(node, _raise_at_first, {"folder": str(tmp_path), "times": 2})]) == ["here"]
        _, second, third = Path(tmp_path, "calls").read_text().split()
        assert second != third
        Path(tmp_path, "calls").unlink()
        with pytest.raises(SearchError, match=r"every node must run pixeltune, but .* stopped with FileNotFoundError"):
            _answers([_Question(node, _raise_at_first, {"folder": str(tmp_path), "times": 99})])
