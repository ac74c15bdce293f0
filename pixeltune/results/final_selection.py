"""The choice of what a final retrains: the configurations with the best validation numbers of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pixeltune.config import Scalar, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One chosen configuration.

    Attributes:
        trial: The trial of the search.
        value: Its value of the objective there; in a search with repeats the mean over its seeds.
        config: Its flat configuration keys.
        images, best_images: Number of training images it saw in all, and until its best report.
        workers: Number of workers it was trained with.
        cpus, gpus: CPUs and GPUs of each worker.
        highest_seed: The highest seed of its trial and of the repeats of it; None if it has none.
    """

    trial: str
    value: float
    config: Mapping[str, Scalar]
    images: int
    best_images: int
    workers: int
    cpus: int
    gpus: float
    highest_seed: int | None = None

    @property
    def seed(self) -> int:
        """Return the highest seed of its trials, by which the choice is biased."""
        return int(self.config["seed"] or 0) if self.highest_seed is None else self.highest_seed


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The choice, made once; the search may continue afterwards.

    Attributes:
        search, search_id: Name of the search at that time, and its id.
        objective, direction: First objective of the search, by which `chosen` is ordered, best first.
        top: How many were asked for; None where trials were named.
        trials: The trials that were asked for by name.
        data_checksum: Checksum of the search's images.
        images: Training images that replace those of the configurations, or None.
        left_out: Messages about trials that could not be chosen.
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
        """Return `count` seeds that none of the chosen trials had, because theirs may have been lucky ones."""
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
        """Return what is requested now and differs from the choice, one line each.

        search_id: id of the search that has this name now; None if there is none, "" if it has no id.
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
        """Return the name of a search in the choice: a renamed one keeps it, a new one of the same name does not."""
        if not search_id or not self.search_id:
            return search
        if search_id == self.search_id:
            return self.search
        return f"another search called {search}" if search == self.search else search

    def configs(self) -> dict[str, TrialConfig]:
        """Return the configurations to train, by trial: on train and validation images, evaluated on neither.

        The caller sets the seed. A trial's number is its best report, and there is no validation set left to find it
        again, so training stops after as many images as the best report had seen, with the schedule unchanged
        (Goodfellow, Bengio and Courville 2016, algorithm 7.2). `images` rescales the whole schedule instead.
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
