"""Each fault of a search under Ray at one of the 20 moments of `benchmarks/faults.py`, early and late by turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.fault_runner import Runner
from tests.support.optional import require
from tests.support.ray_faults import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MOMENTS = (5, 14)
BY_PLACE = sorted(FAULTS, key=lambda name: FAULTS[name].place)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Keeps a Ray of one kind for all the faults that need it, and never two at a time."""
    with Runner() as one:
        yield one


@pytest.mark.parametrize(("name", "moment"), list(zip(BY_PLACE, itertools.cycle(MOMENTS), strict=False)))
def test_a_fault_under_ray_does_no_harm(name: str, moment: int, runner: Runner) -> None:
    if name.startswith("disk full"):
        require("root", "mount", "umount")
    assert runner.harm_at(name, moment).words == []
