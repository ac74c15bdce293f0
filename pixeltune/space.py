"""A search as data: a base configuration and dotted keys with Optuna's own distributions.

A search file in `search_spaces/` defines `search = SearchSpace(...)`. A key is asked only where it exists: with
`likelihood.name` in `vary`, `likelihood.mixtures` is asked when a trial drew logistic_mixture and not otherwise.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from pixeltune.config import DISCRIMINATORS, Scalar, TrialConfig
from pixeltune.config.base import unknown_key
from pixeltune.errors import ConfigError

METRICS: dict[str, str] = {
    "valid_bits_per_dim": "minimize",
    "valid_nats": "minimize",
    "gpu_seconds": "minimize",
    "train_seconds": "minimize",
    "num_parameters": "minimize",
    "peak_memory_bytes": "minimize",
}
"""What a search can optimise, and in which direction."""

SAMPLERS = ("tpe", "random")


@dataclass(frozen=True)
class Budget:
    """When a search ends: at the first limit reached; None does not limit.

    trials: trials in all, those of earlier launches counted.
    images: training images seen, summed over trials.
    gpu_hours: GPU-hours (of the trials' share of GPUs), summed over trials.
    hours: wall time of this launch.
    """

    trials: int = 16
    images: int | None = None
    gpu_hours: float | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "images", "gpu_hours", "hours"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # as NaN is not
                raise ConfigError(f"budget.{name} must be above 0, but got {value}")


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), the stopping variant.

    rungs: training images seen at which a trial is judged, rising; each a multiple of train.report_every.
    reduction: a trial goes on if it is among the best 1/reduction of those that reached the rung so far.
    """

    rungs: tuple[int, ...]
    reduction: int = 2

    def __post_init__(self) -> None:
        if not _are_rising(self.rungs):
            raise ConfigError(
                f"Asha.rungs must be rising numbers of images, such as (10_000, 20_000), but got {self.rungs!r}"
            )
        if self.reduction < 2:
            raise ConfigError(f"Asha.reduction must be at least 2, but got {self.reduction}")


@dataclass(frozen=True)
class Resources:
    """What one trial takes. workers: processes that train it together; cpus and gpus: of each worker.

    A small model on a GPU may take a fraction of it (gpus=0.25 with one worker).
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or not self.gpus >= 0:  # as NaN is not
            raise ConfigError(f"resources must be workers >= 1, cpus >= 1, gpus >= 0, but got {self}")
        if self.gpus > 1 or (self.workers > 1 and self.gpus != int(self.gpus)):
            raise ConfigError(
                "a worker must have at most one GPU, and a whole one (or none) when several train together, "
                f"but got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """One search. base: trial 0, and every key that is not varied. vary: dotted key → Optuna distribution.

    objectives: names in METRICS; the first one ranks the leaderboard.
    scheduler: early stopping, on the first objective's value at its rungs; None lets every trial finish.
    sampler: a name in SAMPLERS; seed: the sampler's.
    keep: trials, the best ones, whose weights are kept when the search ends.
    callbacks: Ray Tune callbacks (W&B, MLflow, TensorBoard) beside the store's own.
    title: one line for `--list`.
    """

    base: TrialConfig
    vary: Mapping[str, BaseDistribution] = field(default_factory=dict)
    objectives: tuple[str, ...] = ("valid_bits_per_dim",)
    budget: Budget = Budget()
    scheduler: Asha | None = None
    resources: Resources = Resources()
    sampler: str = "tpe"
    seed: int = 0
    keep: int = 5
    callbacks: tuple[Any, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.base, TrialConfig):
            raise ConfigError(f"base must be a TrialConfig, such as TrialConfig.build({{...}}), but got {self.base!r}")
        if not isinstance(self.vary, Mapping):
            raise ConfigError(f"vary must map dotted keys to Optuna distributions, but got {self.vary!r}")
        _require_names("objectives", self.objectives, METRICS)
        _require_names("sampler", (self.sampler,), SAMPLERS)
        if self.scheduler is not None and len(self.objectives) > 1:
            raise ConfigError(f"Asha needs one objective, but got {self.objectives}; take scheduler=None")
        if self.scheduler is not None and not self.objectives[0].startswith("valid_"):
            raise ConfigError(
                f"Asha judges by valid_bits_per_dim or valid_nats, but got {self.objectives[0]}; take scheduler=None"
            )
        for key, distribution in self.vary.items():
            if not isinstance(distribution, BaseDistribution):
                raise ConfigError(f"vary[{key!r}] must be an Optuna distribution, but got {distribution!r}")
        object.__setattr__(self, "vary", _discriminators_first(self.vary))
        for key, value in self.base_suggestion().items():
            if not _contains(self.vary[key], value):
                raise ConfigError(
                    f"the base is trial 0, so its `{key}` must lie in {self.vary[key]}, but it is {value!r}"
                )
        for corner in self.corners():
            self._require_rungs(self.configure(corner))
        unused = set(self.vary) - _keys_of(self.corners())
        if unused:
            raise ConfigError(f"vary must name keys that some trial has, but no corner has {', '.join(sorted(unused))}")

    def override(self, changes: Mapping[str, Any]) -> SearchSpace:
        """A copy with dotted keys changed: base keys, `budget.*`, `resources.*`, `scheduler.*`, or `scheduler` to None.

        A varied key that is set is fixed to that value and no longer searched, also where only some trials have it;
        keys that no trial has any more leave `vary`.
        """
        own = {key: value for key, value in changes.items() if key.partition(".")[0] in _OWN_SECTIONS}
        base_changes = {key: value for key, value in changes.items() if key not in own}
        base, vary = self._fixed(base_changes)
        return replace(
            self,
            base=base,
            vary=vary,
            budget=_replaced("budget", self.budget, own),
            resources=_replaced("resources", self.resources, own),
            scheduler=_replaced_scheduler(self.scheduler, own),
        )

    def _fixed(self, changes: Mapping[str, Any]) -> tuple[TrialConfig, dict[str, BaseDistribution]]:
        """The base with `changes`, and what is left to vary.

        A varied key that the base lacks, such as likelihood.mixtures beside a categorical base, becomes a choice of
        one.
        """
        chosen = self.base.override({key: value for key, value in changes.items() if key in _DISCRIMINATOR_KEYS}).flat()
        sometimes = {key: value for key, value in changes.items() if key in self.vary and key not in chosen}
        base = self.base.override({key: value for key, value in changes.items() if key not in sometimes})
        vary = {key: distribution for key, distribution in self.vary.items() if key not in changes}
        vary |= {key: CategoricalDistribution((value,)) for key, value in sometimes.items()}
        left = _keys_of(_corners(base, list(_discriminators_first(vary).items()), {}))
        base.override({key: value for key, value in sometimes.items() if key not in left})  # says which keys there are
        vary = {key: distribution for key, distribution in vary.items() if key in left}
        return base.override(self._gained(base, vary)), vary

    def _gained(self, base: TrialConfig, vary: Mapping[str, BaseDistribution]) -> dict[str, Scalar]:
        """Varied keys that a change of class gave `base`, as near to their defaults as their ranges allow."""
        old, new = self.base.flat(), base.flat()
        gained = {key: new[key] for key in vary if key in new and key not in old}
        return {
            key: value if _contains(vary[key], value) else _nearest(vary[key], value) for key, value in gained.items()
        }

    def configure(self, suggestion: Mapping[str, Any]) -> TrialConfig:
        """The configuration of one suggestion (flat, dotted keys)."""
        return self.base.override(suggestion)

    def suggest(self, trial: BaseTrial) -> dict[str, Scalar]:
        """Ask an Optuna trial for every key that exists given the keys drawn before it."""
        drawn: dict[str, Scalar] = {}
        for key, distribution in self.vary.items():
            if _key_exists(self.base, key, drawn):
                drawn[key] = _ask(trial, key, distribution)
        return drawn

    def base_suggestion(self) -> dict[str, Scalar]:
        """The base configuration's own values of the varied keys: trial 0."""
        flat = self.base.flat()
        return {key: flat[key] for key in self.vary if key in flat}

    def corners(self) -> Iterator[dict[str, Scalar]]:
        """Every combination of extreme values: both ends of a range, each choice of a category."""
        yield from _corners(self.base, list(self.vary.items()), {})

    def _require_rungs(self, config: TrialConfig) -> None:
        if self.scheduler is None:
            return
        every = config.train.report_every
        if every is None:
            raise ConfigError("a search with Asha must set train.report_every, but its base leaves it to the data")
        for rung in self.scheduler.rungs:
            if rung % every or rung > config.train.images:
                raise ConfigError(
                    f"each rung must be a multiple of train.report_every and at most train.images, "
                    f"but got {rung} with {every} and {config.train.images}"
                )


def search_folder() -> Path:
    """Where the shipped searches lie: in a checkout beside the package, else inside the wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "search_spaces"
    return beside if beside.is_dir() else package / "search_spaces"


def list_searches() -> list[str]:
    """The names of the shipped searches."""
    return sorted(path.stem for path in search_folder().glob("*.py") if not path.stem.startswith("_"))


def load_search(name_or_path: str | Path) -> SearchSpace:
    """The SearchSpace that a search file defines as `search`, by a name in search_spaces/ or a path to a .py file."""
    path = search_path(name_or_path)
    spec = importlib.util.spec_from_file_location(f"pixeltune_search_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"a search file must run, but {path} stops with {_first_line(error)}") from error
    search = getattr(module, "search", None)
    if not isinstance(search, SearchSpace):
        raise ConfigError(f"a search file must define `search = SearchSpace(...)`, but {path} does not")
    return search


def search_path(name_or_path: str | Path) -> Path:
    """The file of a search; an unknown name lists the known ones and the nearest."""
    text = str(name_or_path)
    if text.endswith(".py"):
        if not Path(text).is_file():
            raise ConfigError(f"a search file must exist, but there is none at {text}")
        return Path(text)
    known = list_searches()
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ConfigError(
            f"no search is called {text!r}{hint} Known searches: {', '.join(known)} (or a path to a .py file)"
        )
    return search_folder() / f"{text}.py"


_OWN_SECTIONS = ("budget", "resources", "scheduler")
_Part = TypeVar("_Part", Budget, Resources, Asha)


def _replaced(section: str, part: _Part, changes: Mapping[str, Any]) -> _Part:
    mine = {key.partition(".")[2]: value for key, value in changes.items() if key.partition(".")[0] == section}
    known = {item.name: item.type for item in fields(part)}
    for name, value in mine.items():
        if name not in known:
            raise unknown_key(f"{section}.{name}", (f"{section}.{field_name}" for field_name in known))
        _require_type(f"{section}.{name}", str(known[name]), value)
    changed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in mine.items()}
    return replace(part, **changed)


def _replaced_scheduler(scheduler: Asha | None, changes: Mapping[str, Any]) -> Asha | None:
    if "scheduler" in changes:
        if changes["scheduler"] is not None:
            raise ConfigError(
                f"`scheduler` can be set to none, or its keys one by one, but got {changes['scheduler']!r}"
            )
        return None
    if not any(key.startswith("scheduler.") for key in changes):
        return scheduler
    if scheduler is None and "scheduler.rungs" not in changes:
        raise ConfigError("a search without a scheduler needs `scheduler.rungs` first, such as [10000, 20000]")
    return _replaced("scheduler", scheduler or Asha(rungs=(1,)), changes)


def _require_type(key: str, annotation: str, value: object) -> None:
    if annotation.startswith("tuple"):
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ConfigError(f"`{key}` must be a list of whole numbers, such as [10000, 20000], but got {value!r}")
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | None)
        or (value is None and "None" not in annotation)
    ):
        raise ConfigError(f"`{key}` must be a number, but got {value!r}")
    if "float" not in annotation and isinstance(value, float):
        raise ConfigError(f"`{key}` must be a whole number, but got {value!r}")


def _ask(trial: BaseTrial, key: str, distribution: BaseDistribution) -> Scalar:
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, CategoricalDistribution):
        choice: Scalar = trial.suggest_categorical(key, distribution.choices)
        return choice
    raise ConfigError(f"vary[{key!r}] must be an Int, Float or Categorical distribution, but got {distribution!r}")


def _ends(distribution: BaseDistribution) -> tuple[Scalar, ...]:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return tuple(dict.fromkeys((distribution.low, distribution.high)))


def _contains(distribution: BaseDistribution, value: Scalar) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def _nearest(distribution: BaseDistribution, value: Scalar) -> Scalar:
    """The end of the range next to `value`; of choices, the first."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and isinstance(value, int | float):
        return min((distribution.low, distribution.high), key=lambda end: abs(end - value))
    return _ends(distribution)[0]


def _corners(
    base: TrialConfig, rest: list[tuple[str, BaseDistribution]], drawn: dict[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    if not rest:
        yield drawn
        return
    (key, distribution), later = rest[0], rest[1:]
    if not _key_exists(base, key, drawn):
        yield from _corners(base, later, drawn)
        return
    for value in _ends(distribution):
        yield from _corners(base, later, drawn | {key: value})


def _keys_of(corners: Iterator[dict[str, Scalar]]) -> set[str]:
    return {key for corner in corners for key in corner}


def _key_exists(base: TrialConfig, key: str, drawn: Mapping[str, Scalar]) -> bool:
    chosen = {name: value for name, value in drawn.items() if name in _DISCRIMINATOR_KEYS}
    return key in (base.override(chosen) if chosen else base).flat()


_DISCRIMINATOR_KEYS = tuple(f"{section}.{name}" for section, name in DISCRIMINATORS.items())


def _discriminators_first(vary: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return dict(sorted(vary.items(), key=lambda item: item[0] not in _DISCRIMINATOR_KEYS))


def _are_rising(rungs: object) -> bool:
    """Also of what a search file may hold by mistake: (4_000) is a number, not a tuple."""
    if not isinstance(rungs, tuple | list) or not all(type(rung) is int for rung in rungs):
        return False
    return bool(rungs) and rungs[0] > 0 and list(rungs) == sorted(set(rungs))


def _require_names(what: str, names: tuple[str, ...], known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if isinstance(names, str):
        raise ConfigError(f"{what} must be a tuple of names, but got {names!r}")
    for name in names:
        if name not in known:
            raise ConfigError(f"{what} must be among {', '.join(known)}, but got {name!r}")
    if not names:
        raise ConfigError(f"{what} must name at least one of {', '.join(known)}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
