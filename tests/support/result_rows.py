"""Rows, searches and strategies that the tests of the results share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune.config import FAMILIES, LIKELIHOODS, TrialConfig
from pixeltune.results.schema import Status
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


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Any value that a column of this type may hold."""
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_integer(kind):
        return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False, allow_infinity=False)
    if pa.types.is_timestamp(kind):
        return st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def rows_of(schema: pa.Schema, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any row of a schema: required columns always, the others or null."""
    given = {"status": st.sampled_from(list(Status)).map(str), "search": st.just("tiny")} | fixed
    required = {field.name: given.get(field.name, values_of(field.type)) for field in schema if not field.nullable}
    optional = {field.name: st.none() | values_of(field.type) for field in schema if field.nullable}
    return st.fixed_dictionaries(required, optional={name: given.get(name, value) for name, value in optional.items()})
