"""`pixeltune dashboard` without its package; with it, see tests/report/test_dashboard.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import pixeltune.packages
from pixeltune.packages import install_command
from tests.support.commands import refused


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pixeltune.packages, "has_package", lambda name: name != "optuna_dashboard")
    line = refused("dashboard")
    wanted = "the dashboard needs optuna and optuna_dashboard, but optuna_dashboard is not installed; "
    assert wanted + install_command(["optuna_dashboard"]) in line
    assert "dashboard" in install_command(["optuna_dashboard"]).split("[")[-1]
    assert list(tmp_path.iterdir()) == []
