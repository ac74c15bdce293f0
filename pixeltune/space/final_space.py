"""The chosen configurations of a search, each with several seeds: a search of given trials and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from pixeltune.config import DISCRIMINATORS, Scalar, TrialConfig
from pixeltune.space.parts import Budget, Resources
from pixeltune.space.search_space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class FinalSpace(SearchSpace):
    """A search whose trials are known before it begins; it trains on train and validation and reads the test set.

    Args:
        configs: The configurations of trial 0, 1 and so on; `base` is the first of them, and nothing is varied.
        origins: The row columns of each trial that say where it comes from.
    """

    configs: tuple[TrialConfig, ...]
    origins: tuple[Mapping[str, Scalar], ...]

    is_final: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, str]] = {"test_bits_per_dim": "minimize", "test_nats": "minimize"}

    @classmethod
    def of(
        cls,
        chosen: Mapping[str, TrialConfig],
        *,
        search: str,
        seeds: Sequence[int],
        resources: Resources,
        hours: float | None = None,
        trials: int | None = None,
    ) -> Self:
        """Retrain each of `chosen` with each seed: all of one seed, then the next.

        Args:
            chosen: Configurations by the name of their trial in `search`.
            search: The name of the search.
            seeds: The seeds of the trials.
            resources: What one trial takes.
            hours: Wall time of a launch; None does not limit.
            trials: How many of them are to be run; None for all.
        """
        pairs = [(trial, config.override({"seed": seed})) for seed in seeds for trial, config in chosen.items()]
        return cls(
            base=pairs[0][1],
            objectives=("test_bits_per_dim",),
            budget=Budget(trials=trials or len(pairs), hours=hours),
            resources=resources,
            keep=len(pairs),
            title=f"{len(chosen)} of {search}, {len(seeds)} seeds each, on train and validation",
            configs=tuple(config for _, config in pairs),
            origins=tuple({"from_search": search, "from_trial": trial} for trial, _ in pairs),
        )

    def suggestions(self) -> list[dict[str, Scalar]]:
        """Return what makes each configuration of the base."""
        return [_changes(self.base, config) for config in self.configs]

    @cached_property
    def num_configurations(self) -> int | None:
        """Return None: how many trials there are is known, and none is proposed."""
        return None

    def suggestion_of(self, row: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the suggestion by the trial's number."""
        return _changes(self.base, self.configs[row["number"]])

    def corners(self) -> Iterator[dict[str, Scalar]]:
        """Yield every trial."""
        yield from self.suggestions()

    def origin(self, number: int) -> Mapping[str, Scalar]:
        """Return the trial that trial `number` retrains."""
        return self.origins[number]

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the columns that show which configuration, and which seed."""
        return ("from_trial", "seed")


def _changes(base: TrialConfig, config: TrialConfig) -> dict[str, Scalar]:
    """Return the keys in which `config` differs; all of them where its classes do, which share no defaults."""
    before, after = base.flat(), config.flat()
    kinds = [f"{section}.{name}" for section, name in DISCRIMINATORS.items()]
    if any(before[kind] != after[kind] for kind in kinds):
        return after
    return {key: value for key, value in after.items() if before[key] != value}
