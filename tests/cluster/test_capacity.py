"""What the head knows of its cluster: workers that may still start, and what it costs until it is ended."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixeltune.cli.search_summary import farewell_at_end
from pixeltune.cluster.capacity import cluster_file, cost_notice, nodes_at_most, trial_price, workers_to_come
from pixeltune.cluster.ray_backend import RayBackend
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


@pytest.mark.parametrize(
    ("resources", "dollars"),
    [
        (Resources(cpus=4, gpus=1.0), 1.01),
        (Resources(cpus=1, gpus=1.0), 1.01),
        (Resources(cpus=1, gpus=0.25), 1.01 / 4),
        (Resources(cpus=2, gpus=0.25), 1.01 / 2),
        (Resources(cpus=1), 1.01 / 4),
        (Resources(workers=3, cpus=4, gpus=1.0), 3 * 1.01),
        (Resources(cpus=8, gpus=1.0), None),
    ],
    ids=str,
)
def test_the_price_of_a_trial_is_its_share_of_the_dearest_node(resources: Resources, dollars: float | None) -> None:
    assert trial_price(_file(), resources) == (None if dollars is None else pytest.approx(dollars))


@pytest.mark.parametrize("price", [None, "0.53", True, -1.0, float("nan"), float("inf")], ids=str)
def test_a_type_without_a_price_leaves_the_price_unknown(price: object) -> None:
    """Only if it may start, and can hold the trial."""
    config = _file()
    config["metadata"]["dollars_per_hour"]["gpu_t4"] = price
    assert trial_price(config, Resources(cpus=4, gpus=1.0)) is None
    config["available_node_types"]["gpu_t4"]["max_workers"] = 0
    assert trial_price(config, Resources(cpus=4, gpus=1.0)) == pytest.approx(1.01)
    config["available_node_types"]["gpu_t4"] |= {"max_workers": 2, "resources": {"CPU": 2, "GPU": 1}}
    assert trial_price(config, Resources(cpus=4, gpus=1.0)) == pytest.approx(1.01)


def test_a_head_that_can_hold_a_trial_counts() -> None:
    config = _file()
    config["metadata"]["dollars_per_hour"]["head"] = 9.0
    assert trial_price(config, Resources(cpus=4)) == pytest.approx(1.01)
    config["available_node_types"]["head"]["resources"] = {"CPU": 4}
    assert trial_price(config, Resources(cpus=4)) == pytest.approx(9.0)


def test_files_without_prices_have_none() -> None:
    assert trial_price(None, Resources()) is None
    assert trial_price(filled_in("onprem"), Resources()) is None
    assert trial_price(_file(metadata={}), Resources(cpus=4, gpus=1.0)) is None


def test_a_given_price_comes_before_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(write(tmp_path, _file())))
    wanted = Resources(cpus=4, gpus=1.0)
    assert RayBackend("auto").price(wanted) == pytest.approx(1.01)
    assert RayBackend().price(wanted) is None, "this machine is not of the cluster"
    assert RayBackend("auto").price(replace(wanted, dollars_per_hour=0.0)) == 0.0
