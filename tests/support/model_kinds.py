"""Every kind of model that the contract tests run over, from the dicts of families and likelihoods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import pytest

from pixeltune.config import FAMILIES, LIKELIHOODS
from tests.support.pairwise import every_pair


def _variants_of(family: str) -> list[str]:
    """The family's name, which stands for its default variant, and `family/variant` for each other one."""
    field = FAMILIES[family].model_fields.get("variant")
    choices = [] if field is None else [choice for choice in get_args(field.annotation) if choice != field.default]
    return [family, *(f"{family}/{choice}" for choice in choices)]


NETWORK_KINDS = [
    (variant, colour_order)
    for family, kind in FAMILIES.items()
    for variant in _variants_of(family)
    for colour_order in (("mask", "likelihood") if "colour_order" in kind.model_fields else ("likelihood",))
]
"""Families and their variants (`family/variant`), and who orders the colours; a family that has no choice leaves it to
the likelihood. `model_settings` reads such names."""

COUPLING_FAMILIES = [family for family, colour_order in NETWORK_KINDS if colour_order == "likelihood"]
"""Families whose tiles can share the indicator of a mixture."""

every_network = pytest.mark.parametrize(("family", "colour_order"), NETWORK_KINDS)
KINDS = [(family, name, order) for family, order in NETWORK_KINDS for name in LIKELIHOODS]
"""Those with each likelihood."""

every_kind = pytest.mark.parametrize(("family", "likelihood", "colour_order"), KINDS)


def every_kind_and(**axes: Iterable[Any]) -> pytest.MarkDecorator:
    """Every network, each likelihood and each value of `axes` in pairs; all of their product in the slow suite."""
    return every_pair({"family,colour_order": NETWORK_KINDS, "likelihood": LIKELIHOODS} | axes)


def every_network_and(**axes: Iterable[Any]) -> pytest.MarkDecorator:
    """Every network and each value of `axes` in pairs; all of their product in the slow suite."""
    return every_pair({"family,colour_order": NETWORK_KINDS} | axes)


_OF_SOME_FAMILIES = {"kernel_size", "first_kernel_size", "head_channels", "colour_order", "stages"}


def model_settings(family: str, **settings: Any) -> dict[str, Any]:
    """A `model` section: no dropout and one resolution unless told, and without the keys that the family lacks.

    family: its name, or `family/variant`.
    """
    family, _, variant = family.partition("/")
    known = FAMILIES[family].model_fields
    told = {"family": family, "dropout": 0.0, "stages": 1} | ({"variant": variant} if variant else {}) | settings
    return {key: value for key, value in told.items() if key in known or key not in _OF_SOME_FAMILIES}
