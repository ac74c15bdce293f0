"""Each fault of a search without Ray, at 20 moments of it: nothing is lost, doubled or changed, and nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.store_faults import FAULTS, MOMENTS, harm_at


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that can be: a search syncs a hundred files."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_moment_does_no_harm(name: str, moment: int, folder: Path) -> None:
    assert harm_at(name, moment, folder).words == []


def test_a_kill_between_filling_and_publishing_does_no_harm(folder: Path) -> None:
    assert harm_at("killed publishing", MOMENTS // 2, folder).words == []
