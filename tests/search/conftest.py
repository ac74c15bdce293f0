"""Trials that measure their speed for a moment only; what Ray starts takes its time."""

from __future__ import annotations

import pytest

from pixeltune.tune.ray_session import set_environment

set_environment(None)  # before any test module imports Ray, which reads it then


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.sampling.speed._LONGEST", 0.02)
