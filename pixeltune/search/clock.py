"""The clock of a launch."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_BEGAN = datetime.now(UTC), time.monotonic()


def now() -> datetime:
    """The wall clock as this launch began, and what has passed since: GPU-hours must not jump when it is set."""
    began, seconds = _BEGAN
    return began + timedelta(seconds=time.monotonic() - seconds)
