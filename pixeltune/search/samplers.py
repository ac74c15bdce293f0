"""Optuna's samplers, with state that follows from a study's trials alone.

Optuna keeps the state of CMA-ES and the generations of NSGA-II as attributes of trials that no row of results holds: a
study rebuilt from rows has lost them, and the sampler starts from scratch. Here generations are cut from the finished
trials in their order, so that a resumed search continues where it was.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pixeltune.packages import require_packages
from pixeltune.space import SAMPLERS, SearchSpace

_FIRST_STEP = 1 / 6
"""The first step of CMA-ES, in widths of each key's range; Optuna's default."""


def build_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Return the space's sampler; MissingPackageError if a package that it needs is missing."""
    require_packages(f"the sampler {space.sampler}", *SAMPLERS[space.sampler].packages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _BUILDERS[space.sampler](space, seed)


def _startup(space: SearchSpace) -> int:
    """Return the number of trials that are drawn at random before the sampler has enough to learn from."""
    return max(4, min(10, space.budget.trials // 4))


def _population(space: SearchSpace) -> int:
    """Return the population size; Optuna's 50, whose first generation is random, would be all of most searches."""
    return max(6, min(50, space.budget.trials // 6))


def _tpe(space: SearchSpace, seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=_startup(space))


def _gp(space: SearchSpace, seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=_startup(space), warn_independent_sampling=False)


def _nsga2(space: SearchSpace, seed: int) -> BaseSampler:
    return _Generations(population_size=_population(space), seed=seed)


def _cmaes(space: SearchSpace, seed: int) -> BaseSampler:
    return _EvolutionStrategy({key: space.vary[key] for key in space.learnt_keys()}, seed)


def _random(_space: SearchSpace, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


_BUILDERS: Mapping[str, Callable[[SearchSpace, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "random": _random,
}


class _Generations(NSGAIISampler):
    """NSGA-II whose generations are finished trials, a population each, in the order of the study."""

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """Return the generation of a new trial."""
        return len(_finished(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the finished trials of one generation."""
        return _finished(study)[generation * self._size : (generation + 1) * self._size]

    @property
    def _size(self) -> int:
        assert self.population_size is not None
        return self.population_size


class _EvolutionStrategy(BaseSampler):
    """CMA-ES (Hansen and Ostermeier 2001), rebuilt from all finished trials before each draw.

    keys: the ranges of numbers that it searches, in the unit cube; other keys are drawn at random. Trials that it did
    not draw itself, such as the base, are reported like its own.
    """

    def __init__(self, keys: Mapping[str, BaseDistribution], seed: int) -> None:
        self._axes = {key: _Axis(distribution) for key, distribution in keys.items() if not distribution.single()}
        self._rng = np.random.RandomState(seed)
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the keys that are drawn together."""
        return {key: axis.distribution for key, axis in self._axes.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a draw from the newest generation's distribution."""
        if not self._axes:
            return {}
        import cmaes

        size = len(self._axes)
        strategy = cmaes.CMA(
            mean=np.full(size, 0.5),
            sigma=_FIRST_STEP,
            bounds=np.tile([0.0, 1.0], (size, 1)),
            n_max_resampling=10 * size,
            seed=int(self._rng.randint(2**31)),
        )
        known = [(self._point(trial), _loss(study, trial)) for trial in _finished(study)]
        for first in range(0, len(known) - strategy.population_size + 1, strategy.population_size):
            strategy.tell(known[first : first + strategy.population_size])
        return {key: axis.value(unit) for (key, axis), unit in zip(self._axes.items(), strategy.ask(), strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value of a choice, or of a key that only some trials have."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _point(self, trial: FrozenTrial) -> np.ndarray:
        return np.array([axis.unit(trial.params[key]) for key, axis in self._axes.items()])


class _Axis:
    """A range of numbers as [0, 1]: logarithmic if the range is, whole numbers with half a step on either side."""

    def __init__(self, distribution: BaseDistribution) -> None:
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        self.distribution = distribution
        half = (distribution.step or 0) / 2
        self._low, self._high = self._scaled(distribution.low - half), self._scaled(distribution.high + half)

    def unit(self, value: float) -> float:
        """Return the position of a value in [0, 1]."""
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def value(self, unit: float) -> float:
        """Return the value nearest to a position."""
        kind = self.distribution
        scaled = self._low + float(unit) * (self._high - self._low)
        value = math.exp(scaled) if kind.log else scaled
        if kind.step:
            value = kind.low + kind.step * round((value - kind.low) / kind.step)
        value = min(max(value, kind.low), kind.high)
        return int(value) if isinstance(kind, IntDistribution) else value

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.distribution.log else value


def _finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _loss(study: Study, trial: FrozenTrial) -> float:
    assert trial.value is not None
    return -trial.value if study.direction == optuna.study.StudyDirection.MAXIMIZE else trial.value
