"""The samplers by name, and what Optuna's of each name can do: measured, in `tests/search/test_samplers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pixeltune.errors import ConfigError


@dataclass(frozen=True)
class SamplerKind:
    """The abilities of a sampler.

    packages: what it needs in addition to Optuna. several: takes several objectives.
    sees_all: it reads stopped trials and constraints, as reported; any other reads finished trials alone.
    numbers_only: it searches numbers alone, and draws choices at random.
    follows_conditions: it learns keys that only some trials have; any other draws them at random.
    learns: its proposals depend on results. takes_priors: it can be given priors of keys.
    """

    packages: tuple[str, ...] = ()
    several: bool = True
    sees_all: bool = False
    numbers_only: bool = False
    follows_conditions: bool = False
    learns: bool = True
    takes_priors: bool = False


GRID = "grid"
"""The sampler that tries listed values alone."""


SAMPLERS: Mapping[str, SamplerKind] = {
    "tpe": SamplerKind(sees_all=True, follows_conditions=True, takes_priors=True),
    "gp": SamplerKind(packages=("scipy", "torch")),
    "cmaes": SamplerKind(packages=("cmaes",), several=False, numbers_only=True),
    "nsga2": SamplerKind(),
    "random": SamplerKind(sees_all=True, follows_conditions=True, learns=False),
    "qmc": SamplerKind(packages=("scipy",), sees_all=True, follows_conditions=True, learns=False),
    GRID: SamplerKind(sees_all=True, follows_conditions=True, learns=False),
}
"""What proposes trials. tpe: Parzen estimators, of groups of keys that occur together. gp: a Gaussian process.
cmaes: an evolution strategy for numbers. nsga2: a genetic algorithm. random: draws alone. qmc: a scrambled Sobol'
sequence. grid: every combination of values."""


def require_fit(name: str, objectives: tuple[str, ...], learnt: tuple[str, ...], varied: tuple[str, ...]) -> None:
    """Refuse a sampler that would raise, or draw every key at random. learnt: the keys that it learns."""
    if len(objectives) > 1 and not SAMPLERS[name].several:
        able = ", ".join(other for other, kind in SAMPLERS.items() if kind.several)
        raise ConfigError(f"the sampler {name} must have one objective, but got {', '.join(objectives)}; take {able}")
    if varied and not learnt:
        raise ConfigError(
            f"the sampler {name} must have a key of numbers that every trial has, but got {', '.join(varied)}; "
            "take tpe or random"
        )
