"""The environment that Ray reads when it is imported, and trials that measure their speed for a moment only."""

from __future__ import annotations

from pixeltune.tune.ray_session import set_environment
from tests.support.fixtures import short_measurements as short_measurements

set_environment(None)  # before any test module imports Ray, which reads it then
