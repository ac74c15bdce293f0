"""Facts from the nodes of a cluster: a task on each node, with a timeout."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from pixeltune import files
from pixeltune.errors import SearchError, first_line
from pixeltune.own_code import folders_for_workers
from pixeltune.preflight.checks import NodeFacts, check_state_api, node_facts, own_versions, require_passed
from pixeltune.preflight.node_table import NodeRow, Wanted, node_rows, require_fit
from pixeltune.space import Resources
from pixeltune.tune.ray_session import NodeResources, gcs_address

_ANSWER_SECONDS = 120.0
_STATE_API_SECONDS = 30.0


def preflight(
    nodes: Sequence[NodeResources], resources: Resources, storage: str, *, compiles_for: str = ""
) -> list[str]:
    """Do the checks before each search, few on one machine; raise SearchError, or say a line for each warning."""
    warnings: list[str] = []
    if resources.workers > 1:
        warnings += require_passed([check_state_api(resources, ask_state_api())])
    if len(nodes) > 1:
        warnings += require_fit(look_at_nodes(storage, meet=resources.uses_gloo, compiles_for=compiles_for))
    return warnings


def look_at_nodes(
    storage: str,
    *,
    config: Mapping[str, Any] | None = None,
    checksum: str | None = None,
    gpus: float = 0.0,
    meet: bool = False,
    compiles_for: str = "",
) -> list[NodeRow]:
    """Return what each node has and lacks. config: nested, whose images they should have; checksum: the launcher's.

    gpus: of a worker. meet: whether workers of one trial connect by gloo. compiles_for: see `node_facts`.
    """
    marks = files.join(storage, f".doctor-{uuid.uuid4().hex}")
    try:
        facts = ask_nodes(data=config, gpus=bool(gpus), marks=files.absolute(marks), compiles_for=compiles_for)
        seen = [fact.name for number, fact in enumerate(facts) if files.exists(files.join(marks, str(number)))]
    finally:
        files.remove(marks)
    wanted = Wanted(
        versions=own_versions(),
        storage=storage,
        seen=frozenset(seen),
        data=config["data"]["name"] if config else "",
        checksum=checksum,
        gpus=gpus,
        compiles=bool(compiles_for),
        meet=meet and len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1,
    )
    return node_rows(facts, wanted)


def ask_nodes(*, data: Mapping[str, object] | None, gpus: bool, marks: str, compiles_for: str = "") -> list[NodeFacts]:
    """Return the facts of every node that is alive; SearchError names those that do not answer."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        _on(node, node_facts).remote(
            data=data,
            gpus=gpus,
            mark=files.join(marks, str(number)),
            compiles_for=compiles_for,
            code=folders_for_workers(),
        ): _name(node)
        for number, node in enumerate(alive)
    }
    facts = _answers(asked)
    ahead = [_seconds_ahead(node) for node in alive]
    return [
        replace(fact, name=_name(node), ahead=seconds, ray_gpus=node["Resources"].get("GPU", 0.0))
        for node, fact, seconds in zip(alive, facts, ahead, strict=True)
    ]


def _seconds_ahead(node: Mapping[str, Any]) -> float:
    """Return by how many seconds a node's clock is ahead, within the round trip; its worker is already running."""
    before = time.time()
    (clock,) = _answers({_on(node, _clock).remote(): _name(node)})
    after = time.time()
    return max(0.0, clock - after) - max(0.0, before - clock)


def _clock() -> float:
    return time.time()


def _on(node: Mapping[str, Any], function: Any) -> Any:
    """Return the options that bind a task to one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=strategy, max_retries=0)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _answers(asked: Mapping[Any, str]) -> list[Any]:
    """Return the tasks' answers by node name; SearchError if one does not answer in time, or raises."""
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    if silent:
        raise SearchError(
            f"every node must answer within {_ANSWER_SECONDS:g} s, but {', '.join(asked[task] for task in silent)} "
            "did not; see to it, or take it out of the cluster"
        )
    try:
        return list(ray.get(list(asked), timeout=_ANSWER_SECONDS))
    except Exception as error:
        words = str(error).strip().splitlines()
        raise SearchError(f"every node must run pixeltune, but one of them stopped with {words[-1]}") from error


def ask_state_api() -> str:
    """Return "" if the State API answers, else why not. Just after its start it takes a while."""
    from ray.util.state import list_actors

    end = time.monotonic() + _STATE_API_SECONDS
    while True:
        try:
            list_actors(address=gcs_address(), limit=1, timeout=5)
        except Exception as error:  # of many kinds, depending on what does not answer
            if time.monotonic() > end:
                return first_line(error)[:150]
            time.sleep(0.5)
        else:
            return ""
