"""Search files: by a name in `search_spaces/`, or by path."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from pixeltune.errors import ConfigError
from pixeltune.space.search_space import SearchSpace


def search_folder() -> Path:
    """Where the shipped searches lie: in a checkout beside the package, else inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "search_spaces"
    return beside if beside.is_dir() else package / "search_spaces"


def list_searches() -> list[str]:
    """The names of the shipped searches."""
    return sorted(path.stem for path in search_folder().glob("*.py") if not path.stem.startswith("_"))


def load_search(name_or_path: str | Path) -> SearchSpace:
    """The SearchSpace that a search file defines as `search`, by a name in search_spaces/ or a path to a .py file."""
    path = search_path(name_or_path)
    spec = importlib.util.spec_from_file_location(f"pixeltune_search_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"a search file must run, but {path} stops with {_first_line(error)}") from error
    search = getattr(module, "search", None)
    if not isinstance(search, SearchSpace):
        raise ConfigError(f"a search file must define `search = SearchSpace(...)`, but {path} does not")
    return search


def search_path(name_or_path: str | Path) -> Path:
    """The file of a search; an unknown name lists the known ones and the nearest."""
    text = str(name_or_path)
    if text.endswith(".py"):
        if not Path(text).is_file():
            raise ConfigError(f"a search file must exist, but there is none at {text}")
        return Path(text)
    known = list_searches()
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ConfigError(
            f"no search is called {text!r}{hint} Known searches: {', '.join(known)} (or a path to a .py file)"
        )
    return search_folder() / f"{text}.py"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
