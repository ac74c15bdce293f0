"""What Ray reads when it is imported, as in tests/search."""

from __future__ import annotations

from pixeltune.tune.ray_session import set_environment

set_environment(None)
