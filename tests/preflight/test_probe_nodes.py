"""The nodes of a real cluster are asked for their facts; two of them on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
