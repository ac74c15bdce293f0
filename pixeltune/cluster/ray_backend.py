"""Ray as the backend of a search: a local one that ends with the launch, or a cluster that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pixeltune.cluster.capacity import cluster_file, nodes_at_most, workers_to_come
from pixeltune.preflight.checks import compiles_for
from pixeltune.search.attempt import Plan
from pixeltune.search.callbacks import Listener
from pixeltune.search.checkpoint_retention import WeightKeeper
from pixeltune.search.run import Stop
from pixeltune.search.searcher import Planner
from pixeltune.search.state import Ledger
from pixeltune.space import Resources, SearchSpace
from pixeltune.training.compiler import require_compiler
from pixeltune.tune.ray_session import Node, connect, fit_to
from pixeltune.tune.runner import TuneRuns
from pixeltune.tune.watchdog import Heartbeat

_LONGEST_STALL = 900.0
"""Seconds after which a launch ends itself if its main thread makes no progress; a slow storage has its time."""


@dataclass(frozen=True)
class RayBackend:
    """Starts trials under Ray Tune. address: of a Ray that runs; None to start one on this machine."""

    address: str | None = None

    def require(self, space: SearchSpace) -> None:
        """Refuse compiled training where this machine has no compiler; a cluster's nodes are checked later."""
        if self.address is None and compiles_for(space):
            require_compiler(compiles_for(space))

    @contextmanager
    def start(self, ledger: Ledger, stop: Stop, listener: Listener, keeper: WeightKeeper) -> Iterator[RayRunner]:
        """Connect to Ray for as long as the context lasts."""
        with Heartbeat(_LONGEST_STALL).watching() as heart, connect(self.address) as alive:
            heart.beat()
            nodes = nodes_at_most(alive, None if self.address is None else cluster_file())
            yield RayRunner(TuneRuns(stop, ledger, listener, keeper, heart), alive, nodes)


@dataclass(frozen=True)
class RayRunner:
    """Runs trials on a Ray that is up. alive: what each of its nodes has; nodes: those and the ones that may start."""

    runs: TuneRuns
    alive: Sequence[Node]
    nodes: Sequence[Node]

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        """Return what a trial gets on these nodes, and how many run at once; see `fit_to`."""
        return fit_to(self.nodes, wanted, self.runs.listener.say)

    def check(self, resources: Resources) -> None:
        """Look at every node, and report what the user should know."""
        from pixeltune.preflight.probe_nodes import preflight

        ledger = self.runs.ledger
        compiled = compiles_for(ledger.space)
        checked = preflight(self.alive, resources, ledger.store.folder, compiles_for=compiled)
        for line in (*workers_to_come(self.alive, self.nodes), *checked):
            self.runs.listener.say(line)

    def run(self, left: Callable[[], int], planner: Callable[[Sequence[Plan]], Planner], concurrent: int) -> None:
        """Run trials until none is left."""
        self.runs.until_done(left, planner, concurrent)
