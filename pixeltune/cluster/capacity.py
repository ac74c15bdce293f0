"""The capacity and cost of a cluster, read on its head: nodes that may still start, and the price until it is ended.

The head's environment names the cluster file in `PIXELTUNE_CLUSTER_FILE`: the copy that `ray up` leaves there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixeltune.cluster.cluster_file import Config, at, node_types, part, read_cluster_file
from pixeltune.errors import SearchError
from pixeltune.space import Resources
from pixeltune.tune.ray_address import VARIABLE
from pixeltune.tune.ray_session import HEAD, NodeResources, places_on


def cluster_file() -> Config | None:
    """Return the cluster file if this machine is the cluster's head; None elsewhere, or if it cannot be read."""
    path = os.environ.get(VARIABLE)
    try:
        return read_cluster_file(path) if path else None
    except SearchError:
        return None


def nodes_at_most(alive: Sequence[NodeResources], config: Config | None) -> list[NodeResources]:
    """Return the nodes that the cluster can have: those alive, and workers that the file allows in addition."""
    if config is None:
        return [*alive]
    working = sum(HEAD not in node for node in alive)
    return [*alive, *_startable(config)[working:]]


def _startable(config: Config) -> list[NodeResources]:
    """Return every worker that may run at once, in the order of the file's types."""
    _, _, workers = node_types(config)
    nodes = [
        {kind: float(amount) for kind, amount in (each.get("resources") or {}).items()}
        for each in workers.values()
        for _ in range(_most(each, config))
        if each.get("resources")
    ]
    return [*nodes[: _number(config.get("max_workers"))]]


def cost_notice(config: Config | None, path: str | Path | None = None) -> list[str]:
    """Return the last lines of a search on a cluster: that it keeps running, its cost, and the command that ends it.

    path: of the cluster file, if known.
    """
    if config is None:
        return []
    command = f"ray down {path or at(config, 'metadata', 'file') or 'FILE'}"
    head, workers = _dollars(config)
    name = config.get("cluster_name")
    lines = [f"The cluster {name} runs on until you end it, from where you started it: {command}"]
    if head is not None:
        at_most = f", and at most ${head + workers:.2f} with all its workers" if workers else ""
        idle = config.get("idle_timeout_minutes", 5)
        lines.append(f"Until then it costs about ${head:.2f} an hour (${24 * head:.2f} a day) for its head{at_most};")
        lines[-1] += f" a worker ends by itself after {idle:g} minutes without work."
        lines.append(f"Prices are approximate: {at(config, 'metadata', 'prices') or 'those of the cluster file'}.")
    return lines


def trial_price(config: Config | None, resources: Resources) -> float | None:
    """Return the price of an hour of what a trial takes; None if it is not known.

    Of the node types that can hold a worker the dearest counts, by the share of its CPUs or GPUs that the worker takes,
    the larger of the two: which node a trial gets is not known before it starts.
    """
    if config is None:
        return None
    prices = part(config, "metadata", "dollars_per_hour")
    head_name, head, workers = node_types(config)
    counts = {head_name: 1} | {name: _most(kind, config) for name, kind in workers.items()}
    found = []
    for name, kind in ({head_name: head} | workers).items():
        node = {what: float(amount) for what, amount in (kind.get("resources") or {}).items()}
        if counts[name] < 1 or places_on(node, resources) < 1:
            continue
        price = prices.get(name)
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            return None
        gpu_share = resources.gpus / node["GPU"] if resources.gpus else 0.0
        found.append(price * max(resources.cpus / node["CPU"], gpu_share))
    return resources.workers * max(found) if found else None


def _dollars(config: Config) -> tuple[float | None, float]:
    """Return the hourly price of the head (None if not in the file), and of the most workers, the dearest first."""
    prices: Mapping[str, Any] = at(config, "metadata", "dollars_per_hour") or {}
    name, _, workers = node_types(config)
    hours = [float(prices.get(each, 0.0)) for each, kind in workers.items() for _ in range(_most(kind, config))]
    hours = sorted(hours, reverse=True)[: _number(config.get("max_workers"))]
    return (float(prices[name]) if name in prices else None), sum(hours)


def _most(kind: Mapping[str, Any], config: Config) -> int:
    return _number(kind.get("max_workers", config.get("max_workers")))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def workers_to_come(alive: Sequence[NodeResources], most: Sequence[NodeResources]) -> Iterator[str]:
    """Yield a line if nodes are still to start."""
    if len(most) > len(alive):
        working = sum(HEAD not in node for node in alive)
        yield f"The cluster has {working} workers, and starts up to {len(most) - len(alive)} more as trials need them."
