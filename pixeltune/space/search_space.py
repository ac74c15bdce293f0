"""A search as data: a base configuration and dotted keys with Optuna's own distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pixeltune.config import Scalar, TrialConfig
from pixeltune.errors import ConfigError
from pixeltune.space.first_configurations import completed, require_first, still_first
from pixeltune.space.grid_values import grid_distributions, require_grid
from pixeltune.space.keys import (
    DISCRIMINATOR_KEYS,
    as_drawn,
    ask,
    choice_of_one,
    configurations_of,
    contains,
    corners_of,
    count_configurations,
    discriminators_first,
    is_choice,
    key_exists,
    keys_of,
    nearest,
    normal_distribution,
    require_distribution,
    values_of,
    whole_numbers,
)
from pixeltune.space.metrics import METRICS, replaced_constraints, require_constraints
from pixeltune.space.parts import (
    PART_SECTIONS,
    Budget,
    Median,
    Pareto,
    Patience,
    Resources,
    Scheduler,
    real_number,
    replaced,
    replaced_scheduler,
    whole_number,
)
from pixeltune.space.priors import Prior, require_priors
from pixeltune.space.sampler_names import GRID, SAMPLERS, require_fit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A search: what is fixed, what is varied, and what is optimised within which limits.

    Args:
        base: The configuration of trial 0, and every key that is not varied.
        vary: Dotted key → Optuna distribution. A key is drawn only where it exists.
        objectives: Names in METRICS; the first one ranks the leaderboard.
        constraints: Names in METRICS → the most that a trial may have of it, or the least of what is maximised. A trial
            that breaks one is stopped as soon as that is known, and is never the best.
        budget: When the search ends; its `patience` counts trials without an improvement.
        scheduler: Early stopping, on the first objective's value or (Pareto) on all; None lets every trial finish.
        resources: What one trial takes.
        patience: How long a trial may send no message.
        sampler: A name in SAMPLERS.
        first: Configurations that are tried right after the base, in this order: values of varied keys; a key that is
            not given has the value of the base.
        grid: Key → the values that the sampler `grid` tries, in this order; a key that is not named takes every value
            of its distribution.
        prior: Key → where its best value is expected: LogNormal, Normal or ChoiceWeights; for the sampler `tpe`.
        repeats: Number of seeds with which a configuration is trained before it counts as the best: a trial that would
            be the best is followed by further ones, each with the next seed.
        seed: The seed of the sampler.
        keep: Number of best trials whose weights are kept when the search ends; a gallery of each is drawn.
        keep_states: Number of these whose optimiser state is kept too, for `pixeltune continue`.
        galleries: Epochs after which what each trial's model draws is kept as a picture, at the report nearest to each.
        callbacks: Ray Tune callbacks (W&B, MLflow, TensorBoard) in addition to the store's own.
        title: One line for `--list`.

    Raises:
        ConfigError: A part does not fit, or some value that can be drawn gives a configuration that cannot be built.
    """

    base: TrialConfig
    vary: Mapping[str, BaseDistribution] = field(default_factory=dict)
    objectives: tuple[str, ...] = ("valid_bits_per_dim",)
    constraints: Mapping[str, float] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    scheduler: Scheduler | None = None
    resources: Resources = field(default_factory=Resources)
    patience: Patience = field(default_factory=Patience)
    sampler: str = "tpe"
    first: Sequence[Mapping[str, Any]] = ()
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    prior: Mapping[str, Prior] = field(default_factory=dict)
    repeats: int = 1
    seed: int = 0
    keep: int = 5
    keep_states: int = 0
    galleries: tuple[float, ...] = ()
    callbacks: tuple[Any, ...] = ()
    title: str = ""

    is_final: ClassVar[bool] = False
    """Whether trials read the test set when they end."""
    metrics: ClassVar[Mapping[str, str]] = METRICS
    """What may be an objective."""

    def __post_init__(self) -> None:
        if not isinstance(self.base, TrialConfig):
            raise ConfigError(f"base must be a TrialConfig, such as TrialConfig.build({{...}}), but got {self.base!r}")
        if not isinstance(self.vary, Mapping):
            raise ConfigError(f"vary must map dotted keys to Optuna distributions, but got {self.vary!r}")
        _require_names("objectives", self.objectives, self.metrics)
        require_constraints(self.constraints)
        _require_names("sampler", (self.sampler,), SAMPLERS)
        object.__setattr__(self, "constraints", _plain_bounds(self.constraints))
        for name in ("keep", "keep_states", "repeats", "seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.keep < 0:
            raise ConfigError(f"keep must be at least 0, but got {self.keep}")
        if not 0 <= self.keep_states <= self.keep:
            raise ConfigError(
                f"keep_states must be from 0 to keep ({self.keep}), because a trial is continued from its weights too, "
                f"but got {self.keep_states}"
            )
        self._require_repeats()
        if not isinstance(self.galleries, tuple):
            raise ConfigError(f"galleries must be a tuple of epochs above 0, but got {self.galleries!r}")
        object.__setattr__(self, "galleries", tuple(real_number("galleries", epoch) for epoch in self.galleries))
        if not all(0 < epoch < math.inf for epoch in self.galleries):
            raise ConfigError(f"galleries must be a tuple of epochs above 0, but got {self.galleries!r}")
        if self.base.data.train_on_valid and not self.is_final:
            raise ConfigError(
                "a search chooses by the validation images, so `data.train_on_valid` must be false, but got true; "
                "`pixeltune final` trains on them what a search has chosen"
            )
        if self.is_final and (self.budget.target is not None or self.budget.patience is not None):
            raise ConfigError("a final must run all its trials, but got budget.target or budget.patience; leave it out")
        self._require_scheduler_fits()
        for key, distribution in self.vary.items():
            require_distribution(key, distribution)
            if key.startswith("data."):
                raise ConfigError(
                    f"a search must measure all trials on the same images, but vary has {key!r}; set it in the base, "
                    "and make a search of each value"
                )
        vary = {key: normal_distribution(key, distribution) for key, distribution in self.vary.items()}
        object.__setattr__(self, "vary", discriminators_first(vary))
        flat = self.base.flat()
        for key, value in self.base_suggestion().items():
            if not contains(self.vary[key], value):
                raise ConfigError(
                    f"the base is trial 0, so its `{key}` must be in {self.vary[key]}, but it is {flat[key]!r}"
                )
        for corner in self.corners():
            self._require_rungs(self.configure(corner))
        self._require_every_step()
        unused = set(self.vary) - keys_of(self.corners())
        if unused:
            raise ConfigError(f"vary must name keys that some trial has, but no corner has {', '.join(sorted(unused))}")
        require_fit(self.sampler, self.objectives, self.learnt_keys(), tuple(self.vary))
        object.__setattr__(self, "grid", require_grid(self.sampler, self.grid, self.vary))
        object.__setattr__(self, "prior", require_priors(self.sampler, self.prior, self.vary))
        object.__setattr__(self, "first", require_first(self))
        for suggestion in self.first_suggestions():
            self._require_rungs(self.configure(suggestion))

    def override(self, changes: Mapping[str, Any]) -> SearchSpace:
        """Return a copy with dotted keys changed.

        A varied key that is set is fixed to that value and no longer searched, also where only some trials have it;
        keys that no trial has any more leave `vary`.

        Args:
            changes: Values of base keys, `budget.*`, `resources.*`, `patience.*`, `constraints.*` (None removes one),
                `scheduler.*`, or `scheduler` to a name in SCHEDULERS or None.

        Raises:
            ConfigError: A key does not exist, or the search does not fit together with the new values.
        """
        own = {key: value for key, value in changes.items() if key.partition(".")[0] in PART_SECTIONS}
        base_changes = {key: value for key, value in changes.items() if key not in own}
        base, vary = self._fixed(base_changes)
        return replace(
            self,
            base=base,
            vary=vary,
            first=still_first(self.first, base.flat(), vary),
            grid={key: values for key, values in self.grid.items() if key in vary and key not in changes},
            prior={key: prior for key, prior in self.prior.items() if key in vary and key not in changes},
            budget=replaced("budget", self.budget, own),
            resources=replaced("resources", self.resources, own),
            patience=replaced("patience", self.patience, own),
            scheduler=replaced_scheduler(self.scheduler, own),
            constraints=replaced_constraints(self.constraints, own),
        )

    def _fixed(self, changes: Mapping[str, Any]) -> tuple[TrialConfig, dict[str, BaseDistribution]]:
        """Return the base with `changes`, and what is left to vary.

        A varied key that the base lacks, such as likelihood.mixtures with a categorical base, becomes a choice of
        one.
        """
        chosen = self.base.override({key: value for key, value in changes.items() if key in DISCRIMINATOR_KEYS}).flat()
        sometimes = {key: value for key, value in changes.items() if key in self.vary and key not in chosen}
        base = self.base.override({key: value for key, value in changes.items() if key not in sometimes})
        vary = {key: distribution for key, distribution in self.vary.items() if key not in changes}
        vary |= {key: choice_of_one(value) for key, value in sometimes.items()}
        left = keys_of(corners_of(base, list(discriminators_first(vary).items()), {}))
        base.override({key: value for key, value in sometimes.items() if key not in left})  # says which keys there are
        vary = {key: distribution for key, distribution in vary.items() if key in left}
        return base.override(self._gained(base, vary)), vary

    def _gained(self, base: TrialConfig, vary: Mapping[str, BaseDistribution]) -> dict[str, Scalar]:
        """Return varied keys that a change of class gave `base`, as near to their defaults as their ranges allow."""
        old, new = self.base.flat(), base.flat()
        gained = {key: new[key] for key in vary if key in new and key not in old}
        return {
            key: value if contains(vary[key], value) else nearest(vary[key], value) for key, value in gained.items()
        }

    def configure(self, suggestion: Mapping[str, Any]) -> TrialConfig:
        """Return the configuration of one suggestion (flat, dotted keys).

        Args:
            suggestion: Values by dotted key.

        Raises:
            ConfigError: The configuration cannot be built.
        """
        return self.base.override(suggestion)

    def suggest(self, trial: BaseTrial) -> dict[str, Scalar]:
        """Ask an Optuna trial for every key that exists given the keys drawn before it.

        Args:
            trial: The trial of an Optuna study.

        Returns:
            The drawn value of each of these keys.
        """
        return self._drawn(lambda key: as_drawn(self.vary[key], ask(trial, key, self.vary[key])))

    def suggestion_of(self, row: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the suggestion that made a row of the results.

        Args:
            row: A row, whose columns are null for keys that the trial does not have.
        """
        return self._drawn(lambda key: as_drawn(self.vary[key], row.get(key)))

    def _drawn(self, draw: Callable[[str], Scalar]) -> dict[str, Scalar]:
        drawn: dict[str, Scalar] = {}
        for key in self.vary:
            if key_exists(self.base, key, drawn):
                drawn[key] = draw(key)
        return drawn

    def origin(self, _number: int) -> Mapping[str, Scalar]:
        """Return the row columns that say where the configuration of a trial comes from."""
        return {}

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the columns of a row that distinguish trials."""
        return tuple(self.vary)

    def measures_speed_first(self) -> bool:
        """Return whether a trial's sampling speed must be known before it trains."""
        named = {*self.constraints, *(self.objectives if isinstance(self.scheduler, Pareto) else ())}
        return "sample_images_per_second" in named

    def learnt_keys(self) -> tuple[str, ...]:
        """Return the varied keys that the sampler learns; it draws the others at random."""
        kind = SAMPLERS[self.sampler]
        corners = [set(corner) for corner in self.corners()]
        always = set.intersection(*corners) if corners else set()
        return tuple(
            key
            for key, distribution in self.vary.items()
            if (kind.follows_conditions or key in always) and not (kind.numbers_only and is_choice(distribution))
        )

    def base_suggestion(self) -> dict[str, Scalar]:
        """Return the base configuration's own values of the varied keys: trial 0."""
        flat = self.base.flat()
        return {key: as_drawn(self.vary[key], flat[key]) for key in self.vary if key in flat}

    def first_suggestions(self) -> list[dict[str, Scalar]]:
        """Return the first configurations with the values of all varied keys, in their order."""
        return [completed(self, given) for given in self.first]

    def with_first(self, more: Sequence[Mapping[str, Any]]) -> SearchSpace:
        """Return a copy with further first configurations at the end; one that is there already counts once.

        Args:
            more: As `first`.

        Raises:
            ConfigError: One of them is not a configuration of the space, is the base, or occurs twice in `more`.
        """
        if not more:
            return self
        known = self.first_suggestions()
        new = [
            given
            for number, given in enumerate(more, len(known))
            if completed(self, given, f"first[{number}]") not in known
        ]
        return replace(self, first=(*self.first, *new))

    def grid_configurations(self) -> Iterator[dict[str, Scalar]]:
        """Yield the combinations of the sampler `grid`: the last varied key changes fastest, the classes slowest."""
        yield from configurations_of(self.base, grid_distributions(self.grid, self.vary))

    def _outside_grid(self) -> list[dict[str, Scalar]]:
        """Return the base and the first configurations, as far as the grid lacks them."""
        kinds = grid_distributions(self.grid, self.vary)
        given = [self.base_suggestion(), *self.first_suggestions()]
        return [
            each for each in given if not all(value in (values_of(kinds[key]) or ()) for key, value in each.items())
        ]

    @cached_property
    def num_configurations(self) -> int | None:
        """Return the number of different configurations; None if it is not finite, as when a float is varied.

        Of the sampler `grid`: the number of its combinations, and of the configurations that are tried before them.
        """
        if self.sampler == GRID:
            in_grid = count_configurations(self.base, grid_distributions(self.grid, self.vary))
            return (in_grid or 0) + len(self._outside_grid())
        return count_configurations(self.base, self.vary)

    @property
    def most_trials(self) -> int:
        """Return the number of trials that the budget allows and the space has configurations and seeds for."""
        if self.num_configurations is None:
            return self.budget.trials
        return min(self.budget.trials, self.num_configurations * self.repeats)

    def configurations(self) -> Iterator[dict[str, Scalar]]:
        """Yield every suggestion of a finite space, or of the grid; nothing if the space is not finite."""
        if self.sampler == GRID:
            yield from self._outside_grid()
            yield from self.grid_configurations()
            return
        yield from configurations_of(self.base, self.vary)

    def corners(self) -> Iterator[dict[str, Scalar]]:
        """Yield every combination of extreme values: both ends of a range, each choice of a category."""
        yield from corners_of(self.base, list(self.vary.items()), {})

    def _require_every_step(self) -> None:
        """Require that values inside ranges build too: an even kernel size is between odd ones."""
        flat = self.base.flat()
        for key, distribution in self.vary.items():
            for value in whole_numbers(distribution) if key in flat else ():
                try:
                    self._require_rungs(self.configure({key: value}))
                except ConfigError as error:
                    raise ConfigError(
                        f"every value of vary[{key!r}] must be buildable, but {value} is not: {error}; "
                        "set `step`, or take a CategoricalDistribution"
                    ) from None

    def _require_repeats(self) -> None:
        """Require that every repeat has a seed of its own."""
        if self.repeats < 1:
            raise ConfigError(
                f"repeats must be at least 1, the number of seeds of a configuration that may be the best, but got "
                f"{self.repeats}"
            )
        if self.repeats == 1:
            return
        if self.is_final:
            raise ConfigError(f"a final has its own seeds, but got repeats={self.repeats}; give it --seeds")
        if "seed" in self.vary:
            raise ConfigError(
                f"repeats must be 1 where vary has the seed, because repeats differ in it, but got {self.repeats}; "
                "leave one of them out"
            )
        highest = self.base.seed + self.repeats - 1
        if highest >= 2**63:
            raise ConfigError(
                f"every repeat needs a seed below 2^63, but seed {self.base.seed} with repeats={self.repeats} needs "
                f"{highest}; take a lower seed"
            )

    def _require_scheduler_fits(self) -> None:
        if self.scheduler is None:
            return
        name, several = type(self.scheduler).__name__, isinstance(self.scheduler, Pareto)
        if several != (len(self.objectives) > 1):
            rule, other = ("several objectives", "Asha or Median") if several else ("one objective", "Pareto")
            raise ConfigError(f"{name} needs {rule}, but got {self.objectives}; take {other}, or scheduler=None")
        if not self.objectives[0].startswith("valid_"):
            raise ConfigError(
                f"{name} judges by valid_bits_per_dim or valid_nats, but got {self.objectives[0]}; take scheduler=None"
            )

    def _require_rungs(self, config: TrialConfig) -> None:
        if self.scheduler is None:
            return
        if isinstance(self.scheduler, Median):
            if self.scheduler.grace >= config.train.end:
                raise ConfigError(
                    f"Median.grace must be below train.images, but got {self.scheduler.grace} with "
                    f"{config.train.end}; set `scheduler.grace`"
                )
            return
        every = config.train.report_every
        if every is None:
            raise ConfigError(
                f"a search with {type(self.scheduler).__name__} must set train.report_every, "
                "but its base leaves it to the data"
            )
        for rung in self.scheduler.rungs:
            if rung % every or rung >= config.train.end:
                raise ConfigError(
                    "each rung must be a multiple of train.report_every and below train.images, "
                    f"but got {rung} with {every} and {config.train.end}; set `scheduler.rungs`"
                )


def _plain_bounds(constraints: Mapping[str, float]) -> dict[str, float]:
    return {name: real_number(name, bound) for name, bound in constraints.items()}


def _require_names(what: str, names: tuple[str, ...], known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if isinstance(names, str):
        raise ConfigError(f"{what} must be a tuple of names, but got {names!r}")
    for name in names:
        if name not in known:
            raise ConfigError(f"{what} must be among {', '.join(known)}, but got {name!r}")
    if not names:
        raise ConfigError(f"{what} must name at least one of {', '.join(known)}")
