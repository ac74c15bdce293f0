"""Search files: by a name in `search_spaces/`, or by path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pixeltune.errors import ConfigError, first_line
from pixeltune.space.search_files import search_path
from pixeltune.space.search_space import SearchSpace


def load_search(name_or_path: str | Path) -> SearchSpace:
    """Run a search file and return the SearchSpace that it defines as `search`.

    Args:
        name_or_path: A name in search_spaces/, or a path to a .py file.

    Raises:
        ConfigError: There is no such file, it raises, or it defines no `search`.
    """
    path = search_path(name_or_path)
    spec = importlib.util.spec_from_file_location(f"pixeltune_search_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"a search file must run, but {path} stops with {first_line(error, with_type=True)}"
        ) from error
    search = getattr(module, "search", None)
    if not isinstance(search, SearchSpace):
        raise ConfigError(f"a search file must define `search = SearchSpace(...)`, but {path} does not")
    return search
