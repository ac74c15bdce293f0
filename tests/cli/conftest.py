"""A cache and a working folder that are the test's own, and trials that measure their speed for a moment only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import short_measurements as short_measurements


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELTUNE_CACHE", str(folder / "cache"))
        patch.setenv("PIXELTUNE_DATA", str(folder / "downloads"))
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands write `results/` and pictures where they run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _apart(no_cluster: None) -> None:
    """Commands find no Ray of this machine."""
