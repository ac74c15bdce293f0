"""Where data lies."""

from __future__ import annotations

import os
from pathlib import Path

from pixeltune.config import DataConfig
from pixeltune.errors import ConfigError, DataError


def data_root() -> Path:
    """Where data sets lie unless `data.path` says otherwise: PIXELTUNE_DATA, else ~/.cache/pixeltune/data."""
    return Path(os.environ.get("PIXELTUNE_DATA") or "~/.cache/pixeltune/data").expanduser()


def given_path(config: DataConfig) -> Path:
    """`data.path`, which this source cannot do without; DataError where nothing is there."""
    if config.path is None:
        raise ConfigError(f"`data.path` must be given for source {config.name}, but the configuration lacks it")
    path = Path(config.path).expanduser()
    if not path.exists():
        raise DataError(f"`data.path` must exist, but there is nothing at {path}")
    return path


def in_one_line(error: BaseException) -> str:
    """The first words of an error of another library."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}…"
