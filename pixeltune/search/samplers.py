"""Optuna's samplers, with state that follows from a study's trials alone.

Optuna keeps the state of CMA-ES and the generations of NSGA-II as attributes of trials that no row of results holds: a
study rebuilt from rows has lost them, and the sampler starts from scratch. Here generations are cut from the finished
trials in their order, so that a resumed search continues where it was. `qmc` takes the point of its sequence by the
trial's number: Optuna's counts its points in attributes of the study, which is built again before each proposal.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pixeltune.packages import require_packages
from pixeltune.space import SAMPLERS, SearchSpace
from pixeltune.space.priors import UNIFORM_SHARE, ChoiceWeights, Prior
from pixeltune.space.sampler_names import GRID

_FIRST_STEP = 1 / 6
"""The first step of CMA-ES, in widths of each key's range; Optuna's default."""


def proposal_seed(space: SearchSpace, number: int) -> int:
    """Return the sampler's seed for one trial; with the same seed, workers that ask at once would get one proposal."""
    return int(np.random.SeedSequence([abs(space.seed), number]).generate_state(1)[0])


def build_sampler(space: SearchSpace, number: int) -> BaseSampler:
    """Return the space's sampler for the trial `number`; MissingPackageError if a package that it needs is missing."""
    require_packages(f"the sampler {space.sampler}", *SAMPLERS[space.sampler].packages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _BUILDERS[space.sampler](space, number)


def _startup(space: SearchSpace) -> int:
    """Return the number of trials that are drawn at random before the sampler has enough to learn from."""
    return max(4, min(10, space.budget.trials // 4))


def _population(space: SearchSpace) -> int:
    """Return the population size; Optuna's 50, whose first generation is random, would be all of most searches."""
    return max(6, min(50, space.budget.trials // 6))


def _tpe(space: SearchSpace, number: int) -> BaseSampler:
    seed = proposal_seed(space, number)
    settings: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
    if space.prior:
        return _PriorTPE(space, seed, n_startup_trials=_startup(space), **settings)
    return TPESampler(seed=seed, n_startup_trials=_startup(space), **settings)


def _gp(space: SearchSpace, number: int) -> BaseSampler:
    seed = proposal_seed(space, number)
    return GPSampler(seed=seed, n_startup_trials=_startup(space), warn_independent_sampling=False)


def _nsga2(space: SearchSpace, number: int) -> BaseSampler:
    return _Generations(population_size=_population(space), seed=proposal_seed(space, number))


def _cmaes(space: SearchSpace, number: int) -> BaseSampler:
    return _EvolutionStrategy({key: space.vary[key] for key in space.learnt_keys()}, proposal_seed(space, number))


def _random(space: SearchSpace, number: int) -> BaseSampler:
    return RandomSampler(seed=proposal_seed(space, number))


def _qmc(space: SearchSpace, number: int) -> BaseSampler:
    return _SobolSequence(space.vary, space.seed, number)


_BUILDERS: Mapping[str, Callable[[SearchSpace, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "random": _random,
    "qmc": _qmc,
    GRID: _random,  # never asked: the searcher proposes the combinations
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


class _PriorTPE(TPESampler):
    """TPE with priors of some keys (πBO; Hvarfner et al. 2022, arXiv 2204.11051).

    TPE maximises log l(x) − log g(x) over candidates drawn from l. Here each key with a prior adds
    confidence / n · log π(x), where n is the number of trials with a result. While TPE draws at random, because it has
    too few of them to learn from, these keys are drawn from π.

    `_compute_acquisition_func` is no public method of Optuna; a test asserts that it is called.
    """

    def __init__(self, space: SearchSpace, seed: int, *, n_startup_trials: int, **settings: Any) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, **settings)
        self._priors = {key: _KeyPrior(prior, space.vary[key]) for key, prior in sorted(space.prior.items())}
        self._startup = n_startup_trials
        self._draws = np.random.default_rng(seed)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the keys that are drawn together."""
        self._num_results = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
        return super().sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value of the prior while there are few results, and TPE's afterwards."""
        prior = self._priors.get(param_name)
        if prior is None or self._num_results >= self._startup:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return prior.draw(self._draws)

    def _compute_acquisition_func(
        self, samples_below: dict[str, np.ndarray], mpe_below: Any, mpe_above: Any
    ) -> np.ndarray:
        values = super()._compute_acquisition_func(samples_below, mpe_below, mpe_above)
        for key, prior in self._priors.items():
            if key in samples_below:
                values = values + prior.log_weights(samples_below[key], self._num_results)
        return values


class _KeyPrior:
    """A prior with the distribution of its key, cut at the ends of the range and mixed with a uniform part."""

    def __init__(self, prior: Prior, distribution: BaseDistribution) -> None:
        self._prior = prior
        self._distribution = distribution

    def draw(self, rng: np.random.Generator) -> Any:
        """Return a value; of a range with steps, on one."""
        is_uniform = float(rng.random()) < UNIFORM_SHARE
        unit = float(rng.random())
        if isinstance(self._prior, ChoiceWeights):
            choices = self._choices()
            parts = [1.0 if is_uniform else self._prior.probability(choice) for choice in choices]
            return choices[int(np.searchsorted(np.cumsum(parts) / sum(parts), unit, side="right"))]
        axis = _Axis(self._distribution)
        low, high = axis.distribution.low, axis.distribution.high
        return axis.value(unit if is_uniform else axis.unit(self._prior.quantile(unit, low, high)))

    def log_weights(self, internal: np.ndarray, num_results: int) -> np.ndarray:
        """Return log π with its exponent, of values as Optuna represents them."""
        values = [self._distribution.to_external_repr(value) for value in internal.tolist()]
        logs, uniform = self._log_densities(values)
        mixed = np.logaddexp(math.log1p(-UNIFORM_SHARE) + np.array(logs), math.log(UNIFORM_SHARE) + uniform)
        weights: np.ndarray = self._prior.confidence / max(1, num_results) * mixed
        return weights

    def _log_densities(self, values: Sequence[Any]) -> tuple[list[float], float]:
        """Return the logarithms of the prior's density at the values, and of the uniform density of the range."""
        prior, kind = self._prior, self._distribution
        if isinstance(prior, ChoiceWeights):
            return [math.log(prior.probability(value)) for value in values], -math.log(len(self._choices()))
        assert isinstance(kind, IntDistribution | FloatDistribution)
        mass = math.log(prior.mass(kind.low, kind.high))
        width = math.log(kind.high / kind.low) if kind.log else kind.high - kind.low
        return [prior.log_density(value, kind.log) - mass for value in values], -math.log(width)

    def _choices(self) -> Sequence[Any]:
        assert isinstance(self._distribution, CategoricalDistribution)
        return self._distribution.choices


class _SobolSequence(BaseSampler):
    """A scrambled Sobol' sequence (Owen 1998), a coordinate a key: trial n takes point n, regardless of all others.

    A key that a trial does not have leaves its coordinate unused. Choices have equal parts of theirs.
    """

    def __init__(self, vary: Mapping[str, BaseDistribution], seed: int, number: int) -> None:
        from scipy.stats import qmc

        sequence = qmc.Sobol(max(1, len(vary)), scramble=True, seed=abs(seed))
        if number:
            sequence.fast_forward(number)
        self._point = dict(zip(vary, sequence.random(1)[0].tolist(), strict=False))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no keys: each has its own coordinate."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no values."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value at the key's coordinate."""
        unit = self._point[param_name]
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[int(unit * len(param_distribution.choices))]
        axis = _Axis(param_distribution)
        return axis.distribution.low if axis.distribution.single() else axis.value(unit)


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
