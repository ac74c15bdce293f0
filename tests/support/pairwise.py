"""Covers of all pairs: few combinations of several axes among which any two values occur together."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pytest


def cover(rows: Mapping[Any, Sequence[Hashable]], strength: int = 2) -> list[Any]:
    """Return keys of `rows` whose values include every combination of `strength` columns that any row has.

    Greedy and deterministic: the keys that add most come first, then those that add ever less, until none is missing.
    """
    parts = {key: set(itertools.combinations(enumerate(row), strength)) for key, row in rows.items()}
    missing, chosen = set().union(*parts.values()), []
    for gain in range(max(map(len, parts.values()), default=0), 0, -1):
        for key, own in parts.items():
            if len(own & missing) >= gain:
                chosen.append(key)
                missing -= own
    return chosen


def every_pair(axes: Mapping[str, Iterable[Any]]) -> pytest.MarkDecorator:
    """Parametrise a test over the product of `axes`: a cover of all pairs runs in the fast suite, the rest is slow.

    axes: argument names, with commas where the values are tuples of several arguments, and the values of each.
    """
    values = [list(each) for each in axes.values()]
    rows = dict(zip(itertools.product(*map(range, map(len, values))), itertools.product(*values), strict=True))
    fast = set(cover({places: places for places in rows}))
    params = []
    for places, row in rows.items():
        arguments = [value if "," in name else (value,) for name, value in zip(axes, row, strict=True)]
        marks = () if places in fast else pytest.mark.slow
        params.append(pytest.param(*itertools.chain.from_iterable(arguments), marks=marks))
    return pytest.mark.parametrize(",".join(axes).split(","), params)
