"""Search files, by a name in `search_spaces/` or by path: what `--list` shows without running them, and running one."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pixeltune.errors import ConfigError, did_you_mean
from pixeltune.files import expand_home
from pixeltune.own_code import error_text, search_in

if TYPE_CHECKING:
    from pixeltune.space.search_space import SearchSpace


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
        path = expand_home(text)
        if not path.is_file():
            raise ConfigError(f"a search file must exist, but there is none at {text}")
        return path
    known = list_searches()
    if text not in known:
        hint = did_you_mean(text, known)
        raise ConfigError(
            f"no search is called {text!r};{' ' if hint else ''}{hint} "
            f"Known searches: {', '.join(known)} (or a path to a .py file)"
        )
    return search_folder() / f"{text}.py"


@dataclass(frozen=True)
class SearchSummary:
    """The part of a search that `--list` shows. title: one line. data: what it sets in its `data` section."""

    title: str
    data: Mapping[str, Any]


def summarise_search(name_or_path: str | Path) -> SearchSummary:
    """Return the summary of a search: read from its file where that has literals, else from the search itself.

    Running a search file imports Optuna and checks every corner of the space: for the shipped ones together a second.
    """
    summary = _read_summary(search_path(name_or_path).read_text(encoding="utf-8"))
    if summary is not None:
        return summary
    from pixeltune.space.search_files import load_search

    search = load_search(name_or_path)
    return SearchSummary(search.title, search.base.data.model_dump())


def _read_summary(code: str) -> SearchSummary | None:
    """Read `search = SearchSpace(title="…", base=TrialConfig.build({"data": {…}}))`; None where it is not that."""
    try:
        call = _last_search(ast.parse(code))
    except SyntaxError:
        return None
    arguments = {keyword.arg: keyword.value for keyword in call.keywords} if call else {}
    match arguments.get("title"), arguments.get("base"):
        case (
            ast.Constant(value=str(title)),
            ast.Call(
                func=ast.Attribute(value=ast.Name(id="TrialConfig"), attr="build"),
                args=[ast.Dict(keys=keys, values=values)],
            ),
        ):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            try:
                return SearchSummary(title, ast.literal_eval(values[names.index("data")]))
            except ValueError:  # there is no "data", or a value in it is computed
                return None
    return None


def _last_search(tree: ast.Module) -> ast.Call | None:
    """Return the call of SearchSpace in the last `search = …`; None where that is anything else."""
    for statement in reversed(tree.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id="search")], value=value):
                match value:
                    case ast.Call(func=ast.Name(id="SearchSpace")):
                        return value
                return None
    return None


class _SourceLoader(SourceFileLoader):
    """Compiles the text of the file: kept bytecode is of an earlier text if a program writes both within a second."""

    def path_stats(self, path: object) -> NoReturn:
        """Refuse the time and the size by which bytecode is found."""
        raise OSError(f"no bytecode of {path} is kept")


def load_search(name_or_path: str | Path) -> SearchSpace:
    """Run a search file and return the SearchSpace that it defines as `search`.

    Modules next to the file can be imported, here and by the trials.

    Args:
        name_or_path: A name in search_spaces/, or a path to a .py file.

    Raises:
        ConfigError: There is no such file, it raises, or it defines no `search`.
    """
    from pixeltune.space.search_space import SearchSpace

    path = search_path(name_or_path)
    if str(name_or_path).endswith(".py"):  # one of the user's, which may name code next to it
        search_in(path.parent)
    loader = _SourceLoader(f"pixeltune_search_{path.stem}", str(path))
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"a search file must run, but {path} stops with {error_text(error)}") from error
    search = getattr(module, "search", None)
    if not isinstance(search, SearchSpace):
        raise ConfigError(f"a search file must define `search = SearchSpace(...)`, but {path} does not")
    return search
