"""Ray as the backend of a search: a local Ray that ends with the launch, or an existing cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from pixeltune.cluster.capacity import cluster_file, nodes_at_most, trial_price, workers_to_come
from pixeltune.preflight.checks import compiles_for
from pixeltune.search.callbacks import SearchCallback
from pixeltune.search.checkpoint_retention import CheckpointRetention
from pixeltune.search.run import Round, Stop, require_price
from pixeltune.search.state import SearchState
from pixeltune.space import Resources, SearchSpace
from pixeltune.training.compiler import require_compiler
from pixeltune.tune.other_launches import notice_of_others
from pixeltune.tune.ray_session import NodeResources, connect, limit_to_capacity
from pixeltune.tune.runner import TuneRunner
from pixeltune.tune.watchdog import LauncherWatchdog

_LONGEST_STALL = 900.0
"""Seconds after which a launch ends itself if its main thread makes no progress; a slow storage needs time."""


@dataclass(frozen=True)
class RayBackend:
    """A backend that runs trials under Ray Tune. address: of a running Ray; None to start one on this machine."""

    address: str | None = None

    def require(self, space: SearchSpace) -> None:
        """Refuse a budget in dollars without a price, and compiled training if this machine has no compiler.

        A cluster's nodes are checked later.
        """
        require_price(space, self.price(space.resources))
        if self.address is None and compiles_for(space):
            require_compiler(compiles_for(space))

    def price(self, resources: Resources) -> float | None:
        """Return the price of an hour of what a trial takes: as given, else by the cluster file; None if unknown."""
        if resources.dollars_per_hour is not None or self.address is None:
            return resources.dollars_per_hour
        return trial_price(cluster_file(), resources)

    @contextmanager
    def start(
        self, state: SearchState, stop: Stop, callback: SearchCallback, retention: CheckpointRetention
    ) -> Iterator[RayRunner]:
        """Connect to Ray for as long as the context lasts."""
        with LauncherWatchdog(_LONGEST_STALL).watching() as watchdog, ExitStack() as stack:
            if self.address is None and (notice := notice_of_others()):
                callback.say(notice)
            with callback.waiting("Starting Ray" if self.address is None else f"Connecting to {self.address}"):
                alive = stack.enter_context(connect(self.address))
            watchdog.beat()
            nodes = nodes_at_most(alive, None if self.address is None else cluster_file())
            yield RayRunner(TuneRunner(stop, state, callback, retention, watchdog), alive, nodes, self.price)


@dataclass(frozen=True)
class RayRunner:
    """A runner of trials on a running Ray.

    Attributes:
        runs: Runs trials under Tune.
        alive: The resources of its nodes.
        nodes: Those of these nodes, and of the ones that may start.
        price: Returns the price of an hour of what a trial takes; None if unknown.
    """

    runs: TuneRunner
    alive: Sequence[NodeResources]
    nodes: Sequence[NodeResources]
    price: Callable[[Resources], float | None] = lambda resources: resources.dollars_per_hour

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        """Return a trial's resources on these nodes with their price, and how many run at once."""
        resources, places = limit_to_capacity(self.nodes, wanted, self.runs.callback.say)
        return replace(resources, dollars_per_hour=self.price(resources)), places

    def check(self, resources: Resources) -> None:
        """Check every node, and report what the user should know."""
        from pixeltune.preflight.probe_nodes import preflight

        state = self.runs.state
        compiled = compiles_for(state.space)
        checked = preflight(self.alive, resources, state.store.folder, compiles_for=compiled)
        for line in (*workers_to_come(self.alive, self.nodes), *checked):
            self.runs.callback.say(line)

    def run(self, round_: Round) -> None:
        """Run the trials of a round until none is left."""
        self.runs.run(round_)
