"""A cache that is the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixeltune.data.load import forget_loaded


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PIXELTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIXELTUNE_DATA", str(tmp_path / "downloads"))
    forget_loaded()
    yield tmp_path / "cache"
    forget_loaded()


@pytest.fixture
def trust_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    monkeypatch.setattr(cifar, "check_integrity", lambda path, _=None: Path(path).exists())
