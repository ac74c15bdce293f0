"""Facts from the nodes of a cluster: a task on each node, with a timeout."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_ATTEMPTS = 4
_PAUSE_SECONDS = 1.0


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
    facts = _answers(
        _Question(
            node,
            node_facts,
            {
                "data": data,
                "gpus": gpus,
                "mark": files.join(marks, str(number)),
                "compiles_for": compiles_for,
                "code": folders_for_workers(),
            },
        )
        for number, node in enumerate(alive)
    )
    ahead = [_seconds_ahead(node) for node in alive]
    return [
        replace(fact, name=_name(node), ahead=seconds, ray_gpus=node["Resources"].get("GPU", 0.0))
        for node, fact, seconds in zip(alive, facts, ahead, strict=True)
    ]


def _seconds_ahead(node: Mapping[str, Any]) -> float:
    """Return by how many seconds a node's clock is ahead, within the round trip; its worker is already running."""
    before = time.time()
    (clock,) = _answers([_Question(node, _clock)])
    after = time.time()
    return max(0.0, clock - after) - max(0.0, before - clock)


def _clock() -> float:
    return time.time()


@dataclass(frozen=True)
class _Question:
    """A function that one node is to run, and its arguments."""

    node: Mapping[str, Any]
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, *, in_new_process: bool) -> ray.ObjectRef[Any]:
        """Start the function. in_new_process: let its process end with it, so that the next one is new."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(self.node["NodeID"], soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": strategy, "max_retries": 0, "max_calls": int(in_new_process)}
        return ray.remote(**options)(self.function).remote(**self.arguments)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _answers(questions: Iterable[_Question]) -> list[Any]:
    """Return what the nodes answer, in the order of the questions.

    A function that raises is asked again, in other processes: where nodes share a disk, one that joins unpacks the
    job's code once more, and a process that is just starting loses the folder that it runs in.

    Raises:
        SearchError: A node does not answer in time, or its function raises each time.
    """
    answers: dict[int, Any] = {}
    open_ = dict(enumerate(questions))
    for attempt in range(_ATTEMPTS):
        tasks = {number: question.ask(in_new_process=attempt > 0) for number, question in open_.items()}
        _, silent = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=_ANSWER_SECONDS)
        if silent:
            names = ", ".join(_name(open_[number].node) for number, task in tasks.items() if task in silent)
            raise SearchError(
                f"every node must answer within {_ANSWER_SECONDS:g} s, but {names} did not; see to it, or take it out "
                "of the cluster"
            )
        failure: Exception | None = None
        for number, task in tasks.items():
            try:
                answers[number] = ray.get(task, timeout=_ANSWER_SECONDS)
                del open_[number]
            except Exception as error:  # what the function raises, or the death of its process
                failure = error
        if failure is None:
            break
        time.sleep(_PAUSE_SECONDS)
    else:
        words = str(failure).strip().splitlines()
        names = ", ".join(_name(question.node) for question in open_.values())
        raise SearchError(f"every node must run pixeltune, but {names} stopped with {words[-1]}") from failure
    return [answers[number] for number in sorted(answers)]


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
