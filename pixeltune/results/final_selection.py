"""What a final retrains, and why: the configurations that a search's validation numbers put in front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pixeltune.config import Scalar, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One configuration. trial: that it was in the search. value: of the objective there. config: its flat keys.

    images, best_images: training images it saw, and after which it was best. seed: its own.
    workers, cpus, gpus: that it was trained with; cpus and gpus are each worker's.
    """

    trial: str
    value: float
    config: Mapping[str, Scalar]
    images: int
    best_images: int
    workers: int
    cpus: int
    gpus: float

    @property
    def seed(self) -> int:
        """The seed of its trial, which its luck had a part in choosing."""
        return int(self.config["seed"] or 0)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The choice as it was made once; the search may go on afterwards.

    search, search_id: the search, by the name that it had then, and by its id.
    objective, direction: the search's first, by which `chosen` stands, best first. top: how many were asked for;
    trials: those that were asked for by name, and then top is None. data_checksum: of the search's images.
    images: training images in place of the configurations' own, or None. left_out: in words, what could not be chosen.
    """

    search: str
    objective: str
    direction: str
    top: int | None
    trials: tuple[str, ...]
    images: int | None
    data_checksum: str
    chosen: tuple[Chosen, ...]
    left_out: tuple[str, ...] = ()
    search_id: str = ""

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Read `dataclasses.asdict` back, from JSON too."""
        chosen = tuple(Chosen(**item) for item in tree["chosen"])
        lists = {name: tuple(tree[name]) for name in ("trials", "left_out")}
        return cls(**(dict(tree) | lists | {"chosen": chosen}))

    def seeds(self, count: int) -> range:
        """So many seeds that none of the chosen had: their own may have been lucky ones, by which they were chosen."""
        first = 1 + max(item.seed for item in self.chosen)
        return range(first, first + count)

    def difference(
        self,
        *,
        search: str,
        top: int | None,
        trials: tuple[str, ...],
        images: int | None,
        search_id: str | None = None,
    ) -> list[str]:
        """Return what is asked for now in another way than when the choice was made, a line each.

        search_id: of the search that has this name now; None if there is none, "" if it has no id.
        """
        pairs = {
            "search": (self._called_now(search, search_id), self.search),
            "--top": (top, self.top),
            "--trial": (trials, self.trials),
            "--images": (images, self.images),
        }
        return [
            f"{what}: {_shown(here)} here, {_shown(there)} in the results"
            for what, (here, there) in pairs.items()
            if here != there
        ]

    def _called_now(self, search: str, search_id: str | None) -> str:
        """Return the name that the choice has for a search: a renamed one is the same, a new one of its name is not."""
        if not search_id or not self.search_id:
            return search
        if search_id == self.search_id:
            return self.search
        return f"another search called {search}" if search == self.search else search

    def configs(self) -> dict[str, TrialConfig]:
        """By trial, as they are retrained but for the seed: on train and validation, without a look at either after.

        A trial's number is its best report, and validation is gone; so training stops after as many images as the best
        report had seen, its schedule as it was (Goodfellow, Bengio and Courville 2016, algorithm 7.2). `images`
        stretches the whole schedule instead.
        """
        return {item.trial: TrialConfig.from_flat(item.config).override(self._changes(item)) for item in self.chosen}

    def _changes(self, item: Chosen) -> dict[str, Scalar]:
        if self.images is not None:
            length: dict[str, Scalar] = {"train.images": self.images, "train.stop_after": None}
        else:
            length = {"train.stop_after": item.best_images} if item.best_images < item.images else {}
        return {"data.train_on_valid": True} | length


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
