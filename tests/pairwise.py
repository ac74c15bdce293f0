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
    names = ",".join(axes).split(",")
    rows = [
        tuple(itertools.chain.from_iterable(v if "," in name else (v,) for name, v in zip(axes, row, strict=True)))
        for row in itertools.product(*axes.values())
    ]
    whole = dict(enumerate(itertools.product(*(range(len(list(values))) for values in axes.values()))))
    fast = set(cover(whole, min(2, len(axes))))
    params = [pytest.param(*row, marks=() if number in fast else pytest.mark.slow) for number, row in enumerate(rows)]
    return pytest.mark.parametrize(names, params)
