"""The nodes of a real cluster are asked for their facts; two of them on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune.search.connect import connect
from pixeltune.space import Resources

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
        from pixeltune.search.nodes import ask_state_api, cluster_checks, preflight

        assert sorted(node["CPU"] for node in nodes) == [1.0, 2.0]
        assert ask_state_api() == ""
        data = {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
        facts, checks = cluster_checks(str(tmp_path), data=data)
        assert len(facts) == 2
        assert len({fact.data for fact in facts}) == 1
        assert facts[0].data
        assert [check.verdict for check in checks] == ["ok", "ok", "ok"]
        assert preflight(nodes, Resources(workers=2), str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == [], "their marks are removed"
