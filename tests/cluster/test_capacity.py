"""What the head knows of its cluster: workers that may still start, and what it costs until it is ended."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixeltune.cli.search_summary import farewell_at_end
from pixeltune.cluster.capacity import cluster_file, cost_notice, nodes_at_most, workers_to_come
from pixeltune.space import Resources
from pixeltune.tune.ray_address import VARIABLE
from pixeltune.tune.ray_session import HEAD, limit_to_capacity
from tests.support.cluster_files import filled_in, write

HEAD_NODE = {HEAD: 1.0, "memory": 1e10}
WORKER = {"CPU": 4.0, "GPU": 1.0}


def _file(**changes: object) -> dict[str, Any]:
    return copy.deepcopy(filled_in("gpu")) | changes


def test_a_search_begins_on_a_head_without_workers() -> None:
    nodes = nodes_at_most([HEAD_NODE], _file())
    assert nodes == [HEAD_NODE, *[WORKER] * 8]
    assert limit_to_capacity(nodes, Resources(cpus=4, gpus=1.0), pytest.fail)[1] == 8
    (line,) = workers_to_come([HEAD_NODE], nodes)
    assert line == "The cluster has 0 workers, and starts up to 8 more as trials need them."


def test_workers_that_run_count_once() -> None:
    alive = [HEAD_NODE, WORKER, WORKER, WORKER]
    assert len(nodes_at_most(alive, _file())) == 1 + 8
    full = [HEAD_NODE, *[WORKER] * 8]
    assert nodes_at_most(full, _file()) == full
    assert list(workers_to_come(full, full)) == []


def test_the_files_bound_holds_for_all_types_together_and_for_each() -> None:
    assert len(nodes_at_most([HEAD_NODE], _file(max_workers=3))) == 1 + 3
    config = _file(max_workers=100)
    for name, most in (("gpu_t4", 1), ("gpu_a10g", 2), ("gpu_l4", 0)):
        config["available_node_types"][name]["max_workers"] = most
    assert len(nodes_at_most([HEAD_NODE], config)) == 1 + 3


def test_without_a_cluster_file_the_nodes_are_those_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cluster_file() is None
    assert nodes_at_most([WORKER], None) == [WORKER]
    assert nodes_at_most([WORKER], filled_in("onprem")) == [WORKER]


@pytest.mark.parametrize("content", [None, "a: [1", "- 1"])
def test_a_cluster_file_that_is_gone_or_damaged_stops_no_search(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.yaml"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(VARIABLE, str(path))
    assert cluster_file() is None


def test_what_a_cluster_costs_until_it_is_ended() -> None:
    assert cost_notice(_file()) == [
        "The cluster pixeltune runs on until you end it, from where you started it: ray down cluster/gpu.yaml",
        "Until then it costs about $0.20 an hour ($4.80 a day) for its head, and at most $8.28 with all its workers; "
        "a worker ends by itself after 20 minutes without work.",
        "Prices are approximate: on-demand list prices of us-east-1, 2025; "
        "see https://aws.amazon.com/ec2/pricing/on-demand/.",
    ]


def test_without_prices_none_is_made_up() -> None:
    assert cost_notice(filled_in("onprem")) == [
        "The cluster pixeltune runs on until you end it, from where you started it: ray down cluster/onprem.yaml"
    ]
    assert cost_notice({"cluster_name": "own"}) == [
        "The cluster own runs on until you end it, from where you started it: ray down FILE"
    ]
    assert cost_notice(None) == []


@pytest.mark.parametrize("address", [None, "auto"])
def test_it_is_said_however_a_launch_on_the_cluster_ends(
    address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(write(tmp_path, _file())))
    out = Console(record=True, width=160)
    with pytest.raises(KeyError), farewell_at_end(out, address):
        raise KeyError("a launch that fails")
    assert ("ray down cluster/gpu.yaml" in out.export_text()) == (address is not None)
