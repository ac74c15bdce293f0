"""The files in `search_spaces/`: their names, paths and titles, without running them."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

from pixeltune.errors import ConfigError


def search_folder() -> Path:
    """Return the folder of the shipped searches: next to the package in a checkout, else inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    in_checkout = package.parent / "search_spaces"
    return in_checkout if in_checkout.is_dir() else package / "search_spaces"


def list_searches() -> list[str]:
    """Return the names of the shipped searches."""
    return sorted(path.stem for path in search_folder().glob("*.py") if not path.stem.startswith("_"))


def search_path(name_or_path: str | Path) -> Path:
    """Return the file of a search; for an unknown name, the error lists the known ones and the nearest."""
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


def search_title(name_or_path: str | Path) -> str:
    """Return the title of a search: read from its file where it is a literal there, else from the search itself.

    Running a search file imports Optuna and checks every corner of the space: for the shipped ones together a second.
    """
    path = search_path(name_or_path)
    title = _literal_title(path.read_text(encoding="utf-8"))
    if title is not None:
        return title
    from pixeltune.space.load import load_search

    return load_search(name_or_path).title


def _literal_title(code: str) -> str | None:
    """Return the `title` in `search = SearchSpace(title="…", …)`; None where the file says it in another way."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return None
    for statement in reversed(statements):
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="search")], value=ast.Call(func=ast.Name(id="SearchSpace"), keywords=keywords)
            ):
                values = [keyword.value for keyword in keywords if keyword.arg == "title"]
                literals = [value.value for value in values if isinstance(value, ast.Constant)]
                return next((text for text in literals if isinstance(text, str)), None)
    return None
