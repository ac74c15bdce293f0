"""Each fault of a search under Ray at 2 of the 20 moments of `benchmarks/faults.py`, early and late."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from faults import Runner
from ray_faults import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MOMENTS = (5, 14)


BY_PLACE = sorted(FAULTS, key=lambda name: FAULTS[name].place)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Keeps a Ray of one kind for all the faults that need it, and never two at a time."""
    with Runner() as one:
        yield one


@pytest.mark.parametrize(("name", "moment"), [(name, moment) for name in BY_PLACE for moment in MOMENTS])
def test_a_fault_under_ray_does_no_harm(name: str, moment: int, runner: Runner) -> None:
    if name.startswith("disk full") and (os.geteuid() != 0 or shutil.which("mount") is None):
        pytest.skip("to mount a small disk takes root")
    assert runner.harm_at(name, moment).words == []
