"""The environment that Ray reads when it is imported."""

from __future__ import annotations

from pixeltune.tune.ray_session import set_environment

set_environment(None)  # before any test module imports Ray, which reads it then
