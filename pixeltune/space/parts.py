"""What a search is given beside its space: budget, early stopping, resources, patience; and the overrides of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pixeltune.config.base import unknown_key
from pixeltune.errors import ConfigError


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


@dataclass(frozen=True)
class Patience:
    """How long a trial may say nothing before its process is killed; it is then tried once more.

    times: of its usual time between reports. minutes: always allowed, however quick its reports are usually.
    start_minutes: always allowed until its first word (data, audit, probes), and to find its place in the cluster.
    """

    times: float = 10.0
    minutes: float = 10.0
    start_minutes: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("times", 1.0), ("minutes", 0.0), ("start_minutes", 0.0)):
            value = getattr(self, name)
            if not least < value < math.inf:  # as NaN is not
                raise ConfigError(f"patience.{name} must be a finite number above {least:g}, but got {value}")


PART_SECTIONS = ("budget", "resources", "scheduler", "patience")
_Part = TypeVar("_Part", Budget, Resources, Asha, Patience)


def replaced(section: str, part: _Part, changes: Mapping[str, Any]) -> _Part:
    """`part` with the dotted keys of its section changed."""
    mine = {key.partition(".")[2]: value for key, value in changes.items() if key.partition(".")[0] == section}
    known = {item.name: item.type for item in fields(part)}
    for name, value in mine.items():
        if name not in known:
            raise unknown_key(f"{section}.{name}", (f"{section}.{field_name}" for field_name in known))
        _require_type(f"{section}.{name}", str(known[name]), value)
    changed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in mine.items()}
    return replace(part, **changed)


def replaced_scheduler(scheduler: Asha | None, changes: Mapping[str, Any]) -> Asha | None:
    """The scheduler with its keys changed, switched on by `scheduler.rungs` or off by `scheduler` = None."""
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
    return replaced("scheduler", scheduler or Asha(rungs=(1,)), changes)


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


def _are_rising(rungs: object) -> bool:
    """Also of what a search file may hold by mistake: (4_000) is a number, not a tuple."""
    if not isinstance(rungs, tuple | list) or not all(type(rung) is int for rung in rungs):
        return False
    return bool(rungs) and rungs[0] > 0 and list(rungs) == sorted(set(rungs))
