"""Code of the user's own that a configuration names as `package.module:name`: where it is, and what it consists of.

It is imported from the path of the process alone: the working directory, the folder of the search file, PYTHONPATH and
installed packages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixeltune.errors import ConfigError, PixeltuneError, first_line

_DIGITS = 16
_LONGEST = 200
_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("purelib", "platlib")})
_LIBRARIES = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")})
_RAISED = "Raised in code of your own: "
_given: dict[Path, None] = {}
_imported: set[str] = set()
"""Top packages of imported names; they may be installed packages."""


def is_own(name: object) -> bool:
    """Return whether a name is an import path rather than the name of something built in."""
    return isinstance(name, str) and ":" in name


def import_object(name: str) -> Any:
    """Return what `package.module:name` names; the import may raise anything.

    Raises:
        ValueError: The name has not the form of an import path.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ValueError("it is not of the form package.module:Name")
    _imported.add(module.partition(".")[0])
    return getattr(importlib.import_module(module), attribute)


@contextmanager
def running(name: str, what: str) -> Iterator[None]:
    """Report what code of the user's own raises as a ConfigError of one line, with the place in its files.

    Args:
        name: Its import path.
        what: What it does, such as `building the network`.
    """
    try:
        yield
    except (PixeltuneError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise
        raise ConfigError(f"{what} of {name} must work, but raises {error_text(error)}; fix the module") from error


def error_text(error: BaseException) -> str:
    """Return an exception in one line, and the place where the user's own code raised it, if it did.

    Returns:
        Text such as `KeyError: 'x' (nets.py:31 in forward)`.
    """
    place = place_of(error)
    return f"{exception_words(error)} ({place})" if place else exception_words(error)


def exception_words(error: BaseException) -> str:
    """Return the class and the first words of an exception, in one line."""
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename is not None:  # its text names the place once more
        text = error.msg
    words = " ".join(text.split())
    name = type(error).__name__
    return f"{name}: {words if len(words) <= _LONGEST else words[:_LONGEST] + '…'}" if words else name


def place_of(error: BaseException) -> str:
    """Return where in the user's own code an exception, or one that caused it, was raised.

    It is the innermost line of code that belongs neither to pixeltune nor to a library. An installed package counts as
    the user's own where a configuration names it.

    Returns:
        Text such as `nets.py:31 in forward`, the file relative to the folder of its top package; "" if there is no such
        line.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.filename and _is_users(cause.filename):
            return f"{Path(cause.filename).name}:{cause.lineno}"
        for file, line, function, module in reversed([*_frames(cause)]):
            if _is_users(file, module):
                where = f"{_file_in_package(Path(file), module)}:{line}"
                return where if function == "<module>" else f"{where} in {function}"
        cause = cause.__cause__
    return ""


def reason_to_skip(error: Exception) -> str:
    """Return why an optional step failed: a lack of memory, an error of torch, or one of the user's own code.

    Any other exception is raised again.
    """
    if place_of(error):
        return error_text(error)
    if isinstance(error, MemoryError | RuntimeError):
        return first_line(error, "out of memory")
    raise error


def _frames(error: BaseException) -> Iterator[tuple[str, int | None, str, str]]:
    """Yield file, line, function and module of the frames of an exception, outermost first."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        yield code.co_filename, line, code.co_name, str(frame.f_globals.get("__name__", ""))
    for summary in getattr(error, "real_stack", None) or ():  # torch.compile: the code that it was reading
        yield summary.filename, summary.lineno, summary.name, ""


def _is_users(file: str, module: str = "") -> bool:
    path = Path(file)
    if file.startswith("<frozen ") or path.is_relative_to(_PACKAGE):
        return False
    if "site-packages" in path.parts or any(path.is_relative_to(folder) for folder in _INSTALLED):
        return module.partition(".")[0] in _imported
    return not any(path.is_relative_to(folder) for folder in _LIBRARIES)


def _file_in_package(file: Path, module: str) -> str:
    home = file.parents[min(len(file.parents) - 1, module.count(".") + (file.name == "__init__.py"))]
    return file.relative_to(home).as_posix()


def note_place(error: BaseException) -> None:
    """Add a line to an exception that says where the user's own code raised it; `split_place` finds it again."""
    place = place_of(error)
    if place:
        error.add_note(_RAISED + place)


def split_place(traceback_text: str) -> tuple[str, str]:
    """Return a traceback as text up to the line that `note_place` added, and the place; "" without such a line."""
    before, found, after = traceback_text.rpartition(_RAISED)
    if not found:
        return traceback_text, ""
    return before, after.partition("\n")[0].strip()


def search_in(folder: Path) -> None:
    """Let code of a folder be imported: that of a search file, or one that a trial's process was given."""
    place = folder.resolve()
    if not place.is_dir():  # a node has the staged copy, or the folder itself
        return
    _given[place] = None
    if str(place) not in sys.path:
        sys.path.append(str(place))


def folders_outside() -> list[Path]:
    """Return the folders given to `search_in` that are not below the working directory."""
    return [folder for folder in _given if not folder.is_relative_to(Path.cwd())]


def folders_for_workers() -> tuple[str, ...]:
    """Return the folders from which a trial's process imports code, as `search_in` takes them there.

    Those below the working directory are relative to it, because each node has its own copy of it. For the others there
    are two: where they are on this machine, and where other nodes get their copy.
    """
    outside = folders_outside()
    inside = [str(folder.relative_to(Path.cwd())) for folder in _given if folder not in outside]
    return (*inside, *map(str, outside), *(staged_name(number) for number in range(len(outside))))


def staged_name(number: int) -> str:
    """Return the name of the copy that nodes get of a folder outside the working directory."""
    return f"pixeltune_own_code_{number}"


def fingerprint(files: Iterable[Path], home: Path) -> str:
    """Return 16 hex digits for the content of source files; comments, layout and their folder do not count."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        try:
            text = ast.unparse(ast.parse(content)).encode()
        except (SyntaxError, ValueError):
            text = content
        name = file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:_DIGITS]


def code_fingerprint(name: str, value: Any) -> str:
    """Return 16 hex digits for the source files of an imported class or function."""
    module = sys.modules[name.partition(":")[0]]
    file = getattr(module, "__file__", None)
    home = home_of(module.__name__, Path(file)) if isinstance(file, str) else Path()
    return fingerprint(code_files(name, value), home)


def combined(parts: Sequence[str]) -> str | None:
    """Return one fingerprint for several; None for none."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:_DIGITS] if parts else None


def code_files(name: str, value: Any) -> list[Path]:
    """Return the source files of a class or function: its module, and those of the same folder that it imports.

    Modules of pixeltune and of installed packages are left out, apart from its own.
    """
    found: dict[Path, None] = {}
    for module in (sys.modules[name.partition(":")[0]], inspect.getmodule(inspect.unwrap(value))):
        file = getattr(module, "__file__", None)
        if module is not None and isinstance(file, str) and file.endswith(".py"):
            _add_code(Path(file), home_of(module.__name__, Path(file)), found)
    return sorted(found)


def _add_code(file: Path, home: Path, found: dict[Path, None]) -> None:
    """Add a file, and those below `home` of the modules that it imports anywhere, functions included."""
    if file in found or not file.is_file():
        return
    found[file] = None
    if home.name == "site-packages":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a file that some string names and nothing imports
        return
    for name in _imported_names(tree, file.relative_to(home)):
        if name[0] == __package__.partition(".")[0]:  # where `home` is a checkout of pixeltune
            continue
        for depth in range(1, len(name) + 1):
            path = home.joinpath(*name[:depth])
            _add_code(path / "__init__.py", home, found)
            _add_code(path.with_name(f"{path.name}.py"), home, found)


def _imported_names(tree: ast.Module, file: Path) -> Iterator[tuple[str, ...]]:
    """Yield the parts of each name that is imported or could be. file: relative to the folder of the top package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.parts[: -node.level] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*package, *module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # for importlib.import_module
            parts = tuple(node.value.split("."))
            if all(part.isidentifier() for part in parts):
                yield parts


def home_of(module_name: str, path: Path) -> Path:
    """Return the folder that holds a module and its like: of its top package, or its own."""
    depth = module_name.count(".") + (path.name == "__init__.py")
    return path.parents[depth]
