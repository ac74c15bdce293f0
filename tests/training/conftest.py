"""Small real training: digits, tiny networks, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pixeltune.data.load import forget_loaded


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIXELTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    forget_loaded()
    yield
    forget_loaded()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _double() -> Iterator[None]:
    """In float64 a golden curve is the same on every processor, and 1e-6 is a strict bound."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def state_path(tmp_path: Path) -> str:
    return str(tmp_path / "state.pt")
