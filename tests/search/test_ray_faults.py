"""Each fault of a search under Ray at 2 of the 20 moments of `benchmarks/faults.py`, early and late."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_faults import FAULTS, Stand, harm_at

pytestmark = pytest.mark.slow

MOMENTS = (5, 14)


@pytest.fixture(scope="module")
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """One Ray of a kind for all the faults that need it, and never two at a time."""
    one = Stand(request.param)
    yield one
    one.close()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("name", "stand"), [(name, fault.place) for name, fault in FAULTS.items()], indirect=["stand"])
def test_a_fault_under_ray_does_no_harm(name: str, moment: int, stand: Stand, tmp_path: Path) -> None:
    if name.startswith("disk full") and (os.geteuid() != 0 or shutil.which("mount") is None):
        pytest.skip("to mount a small disk takes root")
    assert harm_at(name, moment, tmp_path, stand).words == []
