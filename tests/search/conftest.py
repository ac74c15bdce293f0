"""Trials that measure their speed for a moment only; what Ray starts takes its time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.sampling.speed._LONGEST", 0.02)
