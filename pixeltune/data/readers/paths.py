"""Where data is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixeltune.errors import ConfigError, MissingDataError
from pixeltune.files import expand_home

if TYPE_CHECKING:
    from pathlib import Path

    from pixeltune.config import DataConfig


def given_path(config: DataConfig) -> Path:
    """Return `data.path`, which this source cannot do without; MissingDataError where it does not exist."""
    if config.path is None:
        raise ConfigError(f"`data.path` must be given for source {config.name}, but the configuration lacks it")
    path = expand_home(config.path)
    if not path.exists():
        raise MissingDataError(f"`data.path` must exist, but there is nothing at {path}")
    return path


def in_one_line(error: BaseException) -> str:
    """Return the first words of an error of another library."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}…"
