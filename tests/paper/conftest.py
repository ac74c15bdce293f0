"""Trials that measure their speed for a moment only."""

from __future__ import annotations

from tests.support.fixtures import short_measurements as short_measurements
