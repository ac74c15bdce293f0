"""load_data: from a DataConfig to a DataSet, remembered in the process and kept on the node."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

from pixeltune.config import DataConfig
from pixeltune.data.cache import cache_root, entry_folder, in_memory, node_cached
from pixeltune.data.dataset import DataSet
from pixeltune.data.findings import findings_of
from pixeltune.data.prepare import Prepared, prepare
from pixeltune.data.raw import RawData, require_sound
from pixeltune.data.readers.listing import ignored_line
from pixeltune.data.sources import SOURCES, source_of
from pixeltune.data.used_levels import require_usable_levels, unused_levels_note
from pixeltune.errors import ConfigError

_FOLDERS = ("PIXELTUNE_CACHE", "PIXELTUNE_DATA", "HOME", "USERPROFILE")


def load_data(config: DataConfig) -> DataSet:
    """Load the data set that `config` describes, from the node's cache where it is there.

    A process looks at the files once: what changes under it is seen by the next process. Flips are left to training.

    Args:
        config: The data section of a configuration: source, path and options.

    Returns:
        The splits, uint8 levels (N, C, H, W), read-only and mapped from a file where the cache can be written.

    Raises:
        ConfigError: An option does not fit the source, or the source is unknown.
        DataError: The images are missing (MissingDataError), unreadable or not what the source must hold.
        MissingPackageError: The source needs a package that is not installed.
    """
    return _load(config.model_copy(update={"flip": False}), tuple(map(os.environ.get, _FOLDERS)))


@lru_cache(maxsize=4)
def _load(config: DataConfig, _folders: tuple[str | None, ...]) -> DataSet:
    """Load a data set. `_folders`: what decides where images are read and kept."""
    source = source_of(config.name)
    _require_options(config)

    def build() -> Prepared:
        raw = require_sound(source.read(config), name=config.name)
        plan = prepared(config, raw, already_grey=source.greys)
        require_usable_levels(raw, config, already_grey=source.greys)
        return replace(plan, findings=findings_of(raw))

    if source.files is None:
        data = in_memory(build())
    else:
        data = node_cached(entry_folder(cache_root(), config, source.files(config)), build)
    # Files may be added next to those that are read: they are listed again, not kept in the cache.
    left = ignored_line(source.ignored(config)) if source.ignored is not None else ""
    found = (unused_levels_note(data), left)
    return replace(data, notes=(*data.notes, *filter(None, found)))


def prepared(config: DataConfig, raw: RawData, *, already_grey: bool) -> Prepared:
    """Return the plan of the model's splits of a source's images. already_grey: the reader has followed `data.grey`."""
    _require_options(config)
    return prepare(raw, config, default_num_valid=source_of(config.name).num_valid, already_grey=already_grey)


def _require_options(config: DataConfig) -> None:
    published = source_of(config.name).published
    if published is not None and published.num_valid is not None and config.num_valid is not None:
        raise ConfigError(
            f"`data.num_valid` must be unset for {config.name}, whose {published.num_valid:,} validation images are "
            f"published, but got {config.num_valid}; unset it"
        )
    if config.resize is not None and not source_of(config.name).resizes:
        able = ", ".join(name for name, known in SOURCES.items() if known.resizes)
        raise ConfigError(f"`data.resize` needs one of the sources {able}, but got {config.name}; unset it")


def forget_loaded() -> None:
    """Forget what this process has loaded."""
    _load.cache_clear()
