"""Fixtures that several folders of tests import into their conftest."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials measure their sampling speed for a moment only."""
    monkeypatch.setattr("pixeltune.sampling.speed._LONGEST", 0.02)
