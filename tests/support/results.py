"""Results folders, and the configurations, spaces, rows and reports that tests write into them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import FAMILIES, LIKELIHOODS, TrialConfig
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.store import SearchStore
from pixeltune.space import Asha, SearchSpace

PAIRS = [(family, name) for family, kind in FAMILIES.items() for name in LIKELIHOODS if name in kind.likelihoods]
NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)


def make_config(family: str = "gated", likelihood: str = "logistic_mixture", **train: Any) -> TrialConfig:
    settings = {"images": 6400, "report_every": 1600} | train
    return TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": family}, "likelihood": {"name": likelihood}, "train": settings}
    )


def make_space(**changes: Any) -> SearchSpace:
    vary = {
        "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.layers": IntDistribution(2, 20),
        "likelihood.name": CategoricalDistribution(["categorical", "logistic_mixture"]),
        "likelihood.mixtures": IntDistribution(1, 10),
    }
    return SearchSpace(**({"base": make_config(), "vary": vary, "scheduler": Asha((1600, 3200))} | changes))


def make_store(folder: Path | str, name: str, space: SearchSpace | None = None, **manifest: Any) -> SearchStore:
    """Return the store of a new search, or a new final, whose manifest is written."""
    store = SearchStore(str(folder), name)
    store.open(SearchManifest.of(space or make_space(), name, **manifest))
    return store


def make_row(number: int = 0, attempt: int = 1, status: str = "finished", **columns: Any) -> dict[str, Any]:
    return {
        "trial": f"{number:05d}",
        "attempt": attempt,
        "number": number,
        "status": status,
        "started_at": NOW,
        **make_config().flat(),
        **columns,
    }


def make_report(images_seen: int, bits: float = 2.0, **columns: Any) -> dict[str, Any]:
    return {"reported_at": NOW, "images_seen": images_seen, "valid_bits_per_dim": bits, **columns}
