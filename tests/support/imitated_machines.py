"""A backend without Ray: machines that play trials in the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pixeltune.search.run import Round
from pixeltune.search.state import SearchState
from pixeltune.space import Resources, SearchSpace
from tests.support.toy_search import BEGUN, FACTS, FINISHED, ended, play, reported


class ImitatedMachines:
    """A backend of which trial 0 needs a whole GPU; a machine has four CPUs."""

    def __init__(self) -> None:
        self.rounds: list[tuple[bool, int]] = []

    def require(self, space: SearchSpace) -> None:
        """Refuse nothing."""

    @contextmanager
    def start(self, state: SearchState, *_: Any) -> Iterator[ImitatedMachines]:
        self.state = state
        yield self

    def capacity(self, wanted: Resources) -> tuple[Resources, int]:
        return Resources(cpus=min(4, wanted.cpus), gpus=wanted.gpus), 2

    def check(self, resources: Resources) -> None:
        """Refuse nothing."""

    def run(self, round_: Round) -> None:
        self.rounds.append((round_.exclusive, round_.trials_left))
        source = round_.source()
        while round_.trials_left:
            plan = source.next_plan()
            facts = FACTS | {"data_checksum": self.state.store.manifest().data_checksum}
            fits = plan.trial != "00000" or round_.resources.gpus == 1
            end = [reported(400, 2.0), FINISHED] if fits else [ended("oom")]
            play(self.state, plan, BEGUN | {"facts": facts}, *end, resources=round_.resources)
