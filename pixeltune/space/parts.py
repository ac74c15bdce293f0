"""What a search is given next to its space: budget, early stopping, resources, patience; and the overrides of each."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeVar

from pixeltune.errors import ConfigError


def whole_number(key: str, value: object) -> int:
    """Return a whole number, also one of numpy, as Python's int.

    Raises:
        ConfigError: `value` is anything else: a bool, a text, or a float, even if it is whole.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    is_whole = isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer()
    hint = f"; write {int(float(value))}" if isinstance(value, numbers.Real) and is_whole else ""
    raise ConfigError(f"{key} must be a whole number, but got {_plain(value)!r}{hint}")


def real_number(key: str, value: object) -> float:
    """Return a number, also one of numpy, as Python's int or float; NaN and infinity are left to the caller.

    Raises:
        ConfigError: `value` is no number.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ConfigError(f"{key} must be a number, but got {_plain(value)!r}")
    number: int | float = _plain(value)
    return number if isinstance(number, int | float) else float(number)


def _plain(value: object) -> Any:
    """Return a scalar of numpy as Python's own; anything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _settle(part: object, section: str, *, whole: tuple[str, ...] = (), real: tuple[str, ...] = ()) -> None:
    """Make the numbers of a frozen part Python's own; None is left where it is the default."""
    for names, normal in ((whole, whole_number), (real, real_number)):
        for name in names:
            value = getattr(part, name)
            if value is not None or getattr(type(part), name, 0) is not None:
                object.__setattr__(part, name, normal(f"{section}.{name}", value))


def _described(meaning: str, values: str) -> dict[str, str]:
    """Return the metadata of a field: what it means, and the values that it takes, as `pixeltune config` shows them."""
    return {"meaning": meaning, "values": values}


@dataclass(frozen=True)
class Budget:
    """Limits of a search, which ends at the first one reached; None does not limit.

    Args:
        trials: Trials in all, those of earlier launches counted.
        images: Training images seen, summed over trials.
        gpu_hours: GPU-hours (of the trials' share of GPUs), summed over trials.
        hours: Wall time of this launch, in hours.
        dollars: Cost of all trials, at the prices of the cluster file or of `resources.dollars_per_hour`.
        target: The value that the first objective of a finished trial must reach: at most this, or at least this where
            it is maximised. The trial must keep to the constraints, and no code may refute its bits.
        patience: Finished trials in a row that do not improve the first objective. Other trials do not count. It counts
            trials; `SearchSpace.patience` is how long a trial may be silent.
        min_delta: What an improvement is at least, for `patience`, since the last one.

    Raises:
        ConfigError: A limit is not a finite number above 0, or `min_delta` is below 0 or set without `patience`.
    """

    trials: int = field(
        default=16,
        metadata=_described("trials in all, those of earlier launches counted", "≥ 1"),
    )
    images: int | None = field(
        default=None,
        metadata=_described("training images seen, summed over trials; none does not limit them", "≥ 1"),
    )
    gpu_hours: float | None = field(
        default=None,
        metadata=_described(
            "GPU-hours of the trials' share of GPUs, summed over trials; none does not limit them", "> 0"
        ),
    )
    hours: float | None = field(
        default=None,
        metadata=_described("wall time of a launch, in hours; none does not limit it", "> 0"),
    )
    dollars: float | None = field(
        default=None,
        metadata=_described("cost of all trials, at the prices of the cluster; none does not limit it", "> 0"),
    )
    target: float | None = field(
        default=None,
        metadata=_described("value of the first objective that a finished trial must reach, to end the search", "> 0"),
    )
    patience: int | None = field(
        default=None,
        metadata=_described("finished trials in a row without an improvement; none does not limit them", "≥ 1"),
    )
    min_delta: float = field(
        default=0.0,
        metadata=_described("the least improvement of the first objective that counts for budget.patience", "≥ 0"),
    )

    def __post_init__(self) -> None:
        for name in ("trials", "images", "gpu_hours", "hours", "dollars", "target", "patience"):
            value = getattr(self, name)
            if isinstance(value, numbers.Real) and not float(value) > 0:  # as NaN is not
                why = ", as every objective is" if name == "target" else ""
                raise ConfigError(f"budget.{name} must be above 0{why}, but got {value}")
            if value == math.inf:
                raise ConfigError(f"budget.{name} must be finite, but got {value}; leave it out for no limit")
        _settle(
            self,
            "budget",
            whole=("trials", "images", "patience"),
            real=("gpu_hours", "hours", "dollars", "target", "min_delta"),
        )
        if not 0 <= self.min_delta < math.inf:  # as NaN is not
            raise ConfigError(f"budget.min_delta must be a finite number of at least 0, but got {self.min_delta}")
        if self.min_delta and self.patience is None:
            raise ConfigError(
                f"budget.min_delta needs budget.patience, but got {self.min_delta} alone; set budget.patience too"
            )


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the stopping variant.

    Args:
        rungs: Training images seen at which a trial is judged, rising; each a multiple of train.report_every.
        reduction: A trial continues if it is among the best 1/reduction of those that reached the rung so far.

    Raises:
        ConfigError: The rungs are not rising whole numbers above 0, or `reduction` is below 2.

    References:
        Li et al. 2020, arXiv 1810.05934.
    """

    rungs: tuple[int, ...] = field(
        metadata=_described(
            "training images seen at which a trial is judged; each a multiple of train.report_every", "rising, ≥ 1"
        )
    )
    reduction: int = field(
        default=2,
        metadata=_described("a trial continues if it is among the best 1/reduction that reached the rung", "≥ 2"),
    )

    def __post_init__(self) -> None:
        if not _are_rising(self.rungs):
            raise ConfigError(
                f"Asha.rungs must be rising numbers of images, such as (10_000, 20_000), but got {self.rungs!r}"
            )
        object.__setattr__(self, "rungs", tuple(map(int, self.rungs)))
        _settle(self, "Asha", whole=("reduction",))
        if self.reduction < 2:
            raise ConfigError(f"Asha.reduction must be at least 2, but got {self.reduction}")


@dataclass(frozen=True)
class Median:
    """Median stopping, on each trial's best value so far.

    A trial stops at a report where it is worse than the median of what the finished trials had at as many images.

    Args:
        grace: Training images seen before which no trial is stopped.
        completed: Finished trials that it takes to judge.

    Raises:
        ConfigError: `grace` is below 0, or `completed` below 1.

    References:
        Golovin et al. 2017, Google Vizier, §3.2.1.
    """

    grace: int = field(default=0, metadata=_described("training images seen before which no trial is stopped", "≥ 0"))
    completed: int = field(default=4, metadata=_described("finished trials that it takes to judge", "≥ 1"))

    def __post_init__(self) -> None:
        _settle(self, "Median", whole=("grace", "completed"))
        if self.grace < 0 or self.completed < 1:
            raise ConfigError(f"Median must have grace >= 0 and completed >= 1, but got {self}")


@dataclass(frozen=True)
class Pareto:
    """Early stopping for several objectives: at a rung a trial stops only where another ε-dominates it.

    The other came to that rung too, was better there in the first objective by `margin`, and is no worse in every other
    one (additive ε-dominance in the first objective; Laumanns et al. 2002). So a trial of the final front is lost only
    where two curves change places by `margin` or more between rung and end. Ranks, as those of multi-objective ASHA
    (Schmucker et al. 2021, arXiv 2106.12639), would stop a fixed share, front or not.

    What the others are at a rung: num_parameters and network_calls are known when the model is built, and so is
    sample_images_per_second, which such a search measures then, and again at the end. gpu_seconds, train_seconds and
    peak_memory_bytes are those of the rung; a lucky measurement keeps a trial. A trial whose value is not known does
    not stop others and is not stopped.

    Args:
        rungs: Training images seen, as Asha's.
        margin: By how much the other must have been better, in units of the first objective.

    Raises:
        ConfigError: The rungs are not rising whole numbers above 0, or `margin` is not a finite number above 0.

    References:
        Laumanns et al. 2002, ε-dominance. Compare Schmucker et al. 2021, arXiv 2106.12639, multi-objective ASHA.
    """

    rungs: tuple[int, ...] = field(
        metadata=_described(
            "training images seen at which a trial is judged; each a multiple of train.report_every", "rising, ≥ 1"
        )
    )
    margin: float = field(
        metadata=_described(
            "by how much another trial must be better, in units of the first objective, to stop this one", "> 0"
        )
    )

    def __post_init__(self) -> None:
        if not _are_rising(self.rungs):
            raise ConfigError(
                f"Pareto.rungs must be rising numbers of images, such as (10_000, 20_000), but got {self.rungs!r}"
            )
        object.__setattr__(self, "rungs", tuple(map(int, self.rungs)))
        _settle(self, "Pareto", real=("margin",))
        if not 0 < self.margin < math.inf:  # as NaN is not
            raise ConfigError(f"Pareto.margin must be above 0, but got {self.margin}")


Scheduler = Asha | Median | Pareto
SCHEDULERS: dict[str, type[Asha] | type[Median] | type[Pareto]] = {"asha": Asha, "median": Median, "pareto": Pareto}
"""Early stopping by name. Asha and Median judge by one objective, Pareto by several."""


@dataclass(frozen=True)
class Resources:
    """The share of the cluster that one trial takes.

    Args:
        workers: Processes that train it together.
        cpus: CPU cores of each worker.
        gpus: GPUs of each worker, at most one; a small model may take a fraction (gpus=0.25 with one worker).
        dollars_per_hour: Price of an hour of all that the trial takes, for the column `dollars` and `budget.dollars`;
            None takes it from the cluster file, where there is one.

    Raises:
        ConfigError: A number is too small, a worker would have more than one GPU or, with others, a part of one, or the
            price is not a finite number of at least 0.
    """

    workers: int = field(default=1, metadata=_described("processes that train a trial together", "≥ 1"))
    cpus: int = field(default=1, metadata=_described("CPU cores of each worker", "≥ 1"))
    gpus: float = field(
        default=0.0,
        metadata=_described("GPUs of each worker; one worker may take a fraction, several take 0 or 1 each", "0…1"),
    )
    dollars_per_hour: float | None = field(
        default=None,
        metadata=_described("price of an hour of all that a trial takes; none is that of the cluster file", "≥ 0"),
    )

    def __post_init__(self) -> None:
        _settle(self, "resources", whole=("workers", "cpus"), real=("gpus", "dollars_per_hour"))
        if self.dollars_per_hour is not None and not 0 <= self.dollars_per_hour < math.inf:  # as NaN is not
            raise ConfigError(
                f"resources.dollars_per_hour must be a finite number of at least 0, but got {self.dollars_per_hour}"
            )
        if self.workers < 1 or self.cpus < 1 or not self.gpus >= 0:  # as NaN is not
            raise ConfigError(f"resources must be workers >= 1, cpus >= 1, gpus >= 0, but got {self}")
        if self.gpus > 1 or (self.workers > 1 and self.gpus != int(self.gpus)):
            raise ConfigError(
                "a worker must have at most one GPU, and a whole one (or none) when several train together, "
                f"but got {self}"
            )

    def with_whole_gpu(self) -> Resources:
        """Return the same with one GPU for each worker; a price grows as the share of a GPU does."""
        price = self.dollars_per_hour
        return replace(self, gpus=1.0, dollars_per_hour=price and price / (self.gpus or 1.0))

    @property
    def uses_gloo(self) -> bool:
        """Return whether workers of a trial find each other and sum gradients by gloo; those with GPUs use NCCL."""
        return self.workers > 1 and not self.gpus


@dataclass(frozen=True)
class Patience:
    """Limits of the time without a message, after which a trial's process is killed; it is then tried once more.

    Args:
        times: Multiples of its usual time between reports.
        minutes: Always allowed, however quick its reports are usually.
        start_minutes: Always allowed until its first message (data, audit, probes), and until it starts in the cluster.

    Raises:
        ConfigError: `times` is not above 1, or a time not above 0, or one is not finite.
    """

    times: float = field(
        default=10.0,
        metadata=_described("a trial is killed after this multiple of its usual time between reports", "> 1"),
    )
    minutes: float = field(
        default=10.0,
        metadata=_described("always allowed without a report, however quick its reports are usually", "> 0"),
    )
    start_minutes: float = field(
        default=30.0,
        metadata=_described("always allowed until a trial's first report (data, audit, probes), and to start", "> 0"),
    )

    def __post_init__(self) -> None:
        _settle(self, "patience", real=("times", "minutes", "start_minutes"))
        for name, least in (("times", 1.0), ("minutes", 0.0), ("start_minutes", 0.0)):
            value = getattr(self, name)
            if not least < value < math.inf:  # as NaN is not
                raise ConfigError(f"patience.{name} must be a finite number above {least:g}, but got {value}")


PART_SECTIONS = ("budget", "resources", "scheduler", "patience", "constraints")
_Part = TypeVar("_Part", bound=Budget | Resources | Scheduler | Patience)


def replaced(section: str, part: _Part, changes: Mapping[str, Any]) -> _Part:
    """Return `part` with the dotted keys of its section changed."""
    mine = {key.partition(".")[2]: value for key, value in changes.items() if key.partition(".")[0] == section}
    known = {item.name: item.type for item in fields(part)}
    for name, value in mine.items():
        if name not in known:
            from pixeltune.config.section import unknown_key

            raise unknown_key(f"{section}.{name}", (f"{section}.{field_name}" for field_name in known))
        _require_type(f"{section}.{name}", str(known[name]), value)
    changed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in mine.items()}
    return replace(part, **changed)


def replaced_scheduler(scheduler: Scheduler | None, changes: Mapping[str, Any]) -> Scheduler | None:
    """Return the scheduler with its keys changed; `scheduler` itself names another one, or none.

    Where there is none, `scheduler.rungs` alone means Asha. Keys that two kinds share are carried over.
    """
    keys = {key: value for key, value in changes.items() if key.startswith("scheduler.")}
    kind: type[Asha] | type[Median] | type[Pareto] = type(scheduler) if scheduler is not None else Asha
    if "scheduler" in changes:
        name = changes["scheduler"]
        if name is not None and name not in SCHEDULERS:
            raise ConfigError(f"`scheduler` must be {', '.join(SCHEDULERS)} or none, but got {name!r}")
        if name is None:
            if keys:
                raise ConfigError(f"a search without a scheduler must not set `{next(iter(keys))}`")
            return None
        kind = SCHEDULERS[name]
    elif not keys:
        return scheduler
    old = {item.name: getattr(scheduler, item.name) for item in fields(scheduler)} if scheduler is not None else {}
    named = {key.partition(".")[2] for key in keys}
    for item in fields(kind):
        if item.default is MISSING and item.name not in named | old.keys():
            raise ConfigError(f"a search with {kind.__name__} needs `scheduler.{item.name}` first")
    blank = {item.name: _BLANK[item.name] for item in fields(kind) if item.default is MISSING}
    carried = {item.name: old[item.name] for item in fields(kind) if item.name in old}
    return replaced("scheduler", kind(**(blank | carried)), keys)


_BLANK: dict[str, Any] = {"rungs": (1,), "margin": 1.0}
"""Placeholder values of keys that are about to be set."""


def _require_type(key: str, annotation: str, value: object) -> None:
    if annotation.startswith("tuple"):
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ConfigError(f"`{key}` must be a list of whole numbers, such as [10000, 20000], but got {value!r}")
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real | None)
        or (value is None and "None" not in annotation)
    ):
        raise ConfigError(f"`{key}` must be a number, but got {value!r}")
    if "float" not in annotation and isinstance(value, float):
        raise ConfigError(f"`{key}` must be a whole number, but got {value!r}")


def _are_rising(rungs: object) -> bool:
    """Return whether rungs rise; also of what a search file may hold by mistake: (4_000) is a number, not a tuple."""
    if not isinstance(rungs, tuple | list):
        return False
    if not all(isinstance(rung, numbers.Integral) and not isinstance(rung, bool) for rung in rungs):
        return False
    return bool(rungs) and rungs[0] > 0 and list(rungs) == sorted(set(rungs))
