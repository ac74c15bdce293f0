"""Spaces, messages and stores that the tests of the search share: no training, no Ray."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import TrialConfig
from pixeltune.results.schema import Status
from pixeltune.results.store import SearchStore
from pixeltune.search.attempt import RunningAttempt, TrialPlan
from pixeltune.search.pruners import pruner_for
from pixeltune.search.state import SearchState
from pixeltune.space import SAMPLERS, Asha, Budget, Resources, SearchSpace
from pixeltune.space.keys import values_of
from tests.support.optional import PACKAGES
from tests.support.results import make_store

VARY = {
    "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
    "likelihood.mixtures": IntDistribution(2, 8),
    "model.layers": IntDistribution(2, 6),
    "optim.lr": FloatDistribution(1e-4, 1e-1, log=True),
}


def sampler_params(names: Iterable[str] = tuple(SAMPLERS)) -> list[Any]:
    """Return samplers as parameters of a test, each skipped where an extra that it needs is missing."""
    return [
        pytest.param(name, marks=pytest.mark.needs(*(extra for extra in SAMPLERS[name].packages if extra in PACKAGES)))
        for name in names
    ]


def toy_config(**train: Any) -> TrialConfig:
    return TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 2, "channels": 8, "kernel_size": 3},
            "likelihood": {"name": "categorical"},
            "optim": {"lr": 1e-2, "ema": 0.9},
            "train": {"images": 400, "batch_size": 50, "report_every": 100} | train,
            "seed": 5,
        }
    )


def toy_space(**changes: Any) -> SearchSpace:
    plain = {"base": toy_config(), "vary": VARY, "scheduler": Asha((100, 200)), "budget": Budget(trials=20)}
    plain |= changes
    if plain.get("sampler") == "grid" and "grid" not in changes:  # ranges without a step need lists
        endless = [key for key, distribution in plain["vary"].items() if values_of(distribution) is None]
        plain["grid"] = {key: _listed(plain["vary"][key]) for key in endless}
    return SearchSpace(**plain)


def _listed(distribution: FloatDistribution) -> list[float]:
    """Return four values of a range, the lower end and the middle among them."""
    return [distribution.low + share * (distribution.high - distribution.low) for share in (0.0, 0.25, 0.5, 0.75)]


def toy_store(folder: Path, space: SearchSpace) -> SearchStore:
    return make_store(folder, "toy", space)


def toy_state(folder: Path, space: SearchSpace | None = None, **options: Any) -> SearchState:
    """A search state as `run_search` makes it, on a new store or on the one that is there."""
    space = space or toy_space()
    plain = {"baseline": 3.0, "pruner": pruner_for(space)}
    return SearchState(space, toy_store(folder, space), **(plain | options))


def report(images: int, bits: float, **columns: Any) -> dict[str, Any]:
    """An EpochReport as a dictionary; `bits` is the validation's."""
    plain = {
        "images_seen": images,
        "step": images // 50,
        "epoch": images / 1000,
        "train_bits_per_dim": bits + 0.1,
        "train_nats": 40 * bits,
        "valid_bits_per_dim": bits,
        "valid_nats": 44.0 * bits,
        "valid_bits_per_dim_raw": bits + 0.05,
        "valid_nats_raw": 44.0 * bits + 2,
        "valid_bits_per_dim_ema": bits,
        "valid_nats_ema": 44.0 * bits,
        "lr": 0.01,
        "grad_norm": 1.5,
        "train_seconds": images / 100,
        "eval_seconds": images / 1000,
        "compile_seconds": 0.25,
        "images_per_second": 100.0,
    }
    return plain | columns


def reported(images: int, bits: float, **columns: Any) -> dict[str, Any]:
    return {"report": report(images, bits, **columns), "facts": {"peak_memory_bytes": 10 * images}}


FACTS = {"config_key": "0123456789ab", "num_parameters": 7, "audit_seconds": 0.5, "data_checksum": "abc", "levels": 17}
BEGUN = {"facts": FACTS, "resumed": []}
FINISHED = {"end": "finished", "reason": None}


def ended(status: str, reason: str = "so it was") -> dict[str, Any]:
    return {"end": status, "reason": reason}


def play(
    state: SearchState,
    plan: TrialPlan,
    *messages: dict[str, Any],
    crash: str | None = None,
    resources: Resources | None = None,
) -> dict[str, Any]:
    """A trial from its start to its end, stopped where the search state says so; its row."""
    state.start(plan, resources or state.space.resources)
    for message in messages:
        if state.receive(plan.trial, message) is not None:
            break
    return state.finish(plan.trial, crash=crash)


def settle(state: SearchState, plan: TrialPlan, status: str, bits: float | None = None, **facts: Any) -> dict[str, Any]:
    """The end of a trial of one report, in the search state alone: a hundred times as fast as `play`."""
    now = datetime.now(UTC)
    reports = {} if bits is None else {400: report(400, bits)}
    attempt = RunningAttempt(plan, state.space.resources, now, reports=reports, facts=FACTS | facts, ended_at=now)
    row = state.ended[plan.trial] = state._row(attempt, Status(status), None)
    state.curves[plan.trial] = state._curve(reports.values())
    return row


def seen(trial: Any) -> tuple[Any, ...]:
    """All that a sampler can see of a trial."""
    return (
        trial.state,
        trial.params,
        trial.distributions,
        trial.values,
        trial.intermediate_values,
        trial.constraints,
        trial.system_attrs,
    )
