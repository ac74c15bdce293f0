"""Configurations of every family × likelihood, drawn from the classes' own fields, so that a new one is covered."""

from __future__ import annotations

import itertools
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types as at
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from pixeltune.config import DISCRIMINATORS, FAMILIES, LIKELIHOODS, TrialConfig
from pixeltune.errors import ConfigError

PAIRS = [
    (family, likelihood)
    for family, likelihood in itertools.product(FAMILIES, LIKELIHOODS)
    if likelihood in FAMILIES[family].likelihoods
]
TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


def smallest(family: str = "gated", likelihood: str = "logistic_mixture") -> TrialConfig:
    """Nothing but what must be told."""
    return TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": family}, "likelihood": {"name": likelihood}}
    )


def field_of(config: TrialConfig, key: str) -> FieldInfo:
    """The declaration of a dotted key."""
    section, _, name = key.partition(".")
    return type(getattr(config, section)).model_fields[name] if name else TrialConfig.model_fields[section]


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    """Of ge, gt, le, lt those that the field declares."""
    kinds = {at.Ge: "ge", at.Gt: "gt", at.Le: "le", at.Lt: "lt"}
    return {kinds[type(item)]: getattr(item, kinds[type(item)]) for item in field.metadata if type(item) in kinds}


def values_of(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Any value that the field takes by itself; rules between fields apart."""
    return _of_type(field.annotation, bounds_of(field))


def _of_type(annotation: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return st.one_of(_of_type(choice, bounds) for choice in get_args(annotation))
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if annotation is float:
        exclusive = {"exclude_min": "gt" in bounds, "exclude_max": "lt" in bounds}
        return st.floats(low, high, allow_nan=False, allow_infinity=False, **exclusive)
    if annotation is int:
        return st.integers(low if "gt" not in bounds else low + 1, high if "lt" not in bounds else high - 1)
    return {bool: st.booleans(), str: TEXT, type(None): st.none()}[annotation]


@st.composite
def configs(draw: st.DrawFn) -> TrialConfig:
    """Any valid configuration."""
    config = smallest(*draw(st.sampled_from(PAIRS)))
    batch_size = draw(st.integers(1, 512))
    batches = draw(st.integers(1, 10_000))
    report = draw(st.none() | st.integers(1, batches))
    config = config.override(
        {
            "train.batch_size": batch_size,
            "train.images": batches * batch_size,
            "train.report_every": None if report is None else report * batch_size,
        }
    )
    told = {"train.batch_size", "train.images", "train.report_every", *(f"{a}.{b}" for a, b in DISCRIMINATORS.items())}
    free = [key for key in config.flat() if key not in told]
    for key in draw(st.lists(st.sampled_from(free), unique=True, max_size=12)):
        value = draw(values_of(field_of(config, key)))
        try:
            config = config.override({key: value})
        except ConfigError:  # a rule that a single field cannot state, such as odd kernels
            continue
    return config


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a tree."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    return tree


def refusal(attempt: Any) -> str:
    """The words with which `attempt` is refused: a ConfigError, in one line."""
    try:
        attempt()
    except ConfigError as error:
        words = str(error)
        assert words
        assert "\n" not in words
        return words
    raise AssertionError("this must be refused")
