"""Asking the nodes of a cluster: a task on each, with an end to the waiting."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from pixeltune import files
from pixeltune.errors import SearchError
from pixeltune.search.connect import Node
from pixeltune.search.doctor import (
    Check,
    NodeFacts,
    check_clocks,
    check_shared,
    check_state_api,
    check_versions,
    node_facts,
    require_passed,
)
from pixeltune.search.facts import versions
from pixeltune.space import Resources

_ANSWER_SECONDS = 120.0
_STATE_API_SECONDS = 30.0


def preflight(nodes: Sequence[Node], resources: Resources, storage: str) -> list[str]:
    """What is looked at before each search: little on one machine. SearchError, or a line for each warning."""
    checks: list[Check] = []
    if resources.workers > 1:
        checks.append(check_state_api(resources, ask_state_api()))
    if len(nodes) > 1:
        checks += cluster_checks(storage)[1]
    return require_passed(checks)


def cluster_checks(
    storage: str, *, data: Mapping[str, object] | None = None, gpus: bool = False
) -> tuple[list[NodeFacts], list[Check]]:
    """The facts of all nodes, and the checks that only compare them."""
    marks = files.join(storage, f".doctor-{uuid.uuid4().hex}")
    try:
        asked = time.time()
        facts = ask_nodes(data=data, gpus=gpus, marks=files.absolute(marks))
        seen = [fact.name for number, fact in enumerate(facts) if files.exists(files.join(marks, str(number)))]
    finally:
        files.remove(marks)
    clock = asked + (time.time() - asked) / 2
    here = {name.removesuffix("_version"): version for name, version in versions().items()}
    return facts, [
        check_shared(storage, facts, seen),
        check_clocks(clock, facts),
        check_versions(here, facts),
    ]


def ask_nodes(*, data: Mapping[str, object] | None, gpus: bool, marks: str) -> list[NodeFacts]:
    """The facts of every node that is alive; SearchError names those that do not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    asked: dict[Any, str] = {}
    for number, node in enumerate(alive):
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(node_facts).options(num_cpus=0, scheduling_strategy=strategy, max_retries=0)
        mark, name = files.join(marks, str(number)), f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        asked[task.remote(data=data, gpus=gpus, mark=mark)] = name
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    if silent:
        raise SearchError(
            f"every node must answer within {_ANSWER_SECONDS:g} s, but {', '.join(asked[task] for task in silent)} "
            "did not; see to it, or take it out of the cluster"
        )
    try:
        facts = ray.get(list(asked), timeout=_ANSWER_SECONDS)
    except Exception as error:
        words = str(error).strip().splitlines()
        raise SearchError(f"every node must run pixeltune, but one of them stopped with {words[-1]}") from error
    return [replace(fact, name=name) for fact, name in zip(facts, asked.values(), strict=True)]


def own_address() -> str:
    """Of this launch's cluster, for the State API, which else refuses where several run on one machine."""
    return str(ray.get_runtime_context().gcs_address)


def ask_state_api() -> str:
    """ "" where it answers, else why not. Just after its start it takes a while."""
    from ray.util.state import list_actors

    end = time.monotonic() + _STATE_API_SECONDS
    while True:
        try:
            list_actors(address=own_address(), limit=1, timeout=5)
        except Exception as error:  # of many kinds, by what does not answer
            if time.monotonic() > end:
                return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
            time.sleep(0.5)
        else:
            return ""
