"""What Ray reads when it is imported, as in tests/search."""

from __future__ import annotations

from pixeltune.search.connect import set_environment

set_environment(None)
