"""Imports point one way, ray and pandas have one home each, and importing pixeltune loads nothing heavy."""

from __future__ import annotations

import ast
import graphlib
import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pixeltune
import pixeltune.space

ROOT = Path(pixeltune.__file__).parent
ORDER = (
    "lazy",
    "format",
    "errors",
    "packages",
    "digest",
    "files",
    "published_sets",
    "machine",
    "masking",
    "own_code",
    "config",
    "space",
    "data",
    "likelihoods",
    "models",
    "sampling",
    "audit",
    "training",
    "results",
    "published",
    "report",
    "paper",
    "search",
    "tune",
    "preflight",
    "cluster",
    "cli",
    "__main__",
)
"""A module imports only what stands to its left, or its own package."""
HOMES = {
    "ray": {"tune", "preflight", "cluster"},
    "pandas": {"results", "published"},
    "plotly": {"report"},
    "matplotlib": {"paper"},
}
HEAVY = ("torch", "torchvision", "ray", "pandas", "pyarrow", "optuna", "pydantic", "numpy", "sklearn", "PIL", "rich")


def _module_name(path: Path) -> str:
    parts = [*path.relative_to(ROOT.parent).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module_name(path): path for path in sorted(ROOT.rglob("*.py")) if "search_spaces" not in path.parts}
OWN = {name: path for name, path in FILES.items() if name != "pixeltune"}  # the root's table is read on first use


def _imports_of(name: str) -> Iterator[tuple[str, int]]:
    """Every import's module and line, those in functions too; TYPE_CHECKING apart."""
    yield from _imports(FILES[name], ast.parse(FILES[name].read_text(encoding="utf-8")))


def _imports_at_once(name: str) -> Iterator[tuple[str, int]]:
    """The same without those in functions."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    yield from _imports(FILES[name], tree)


def _imports(path: Path, node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.orelse:
            yield from _imports(path, child)
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}:{node.lineno} imports relatively"
        assert node.module is not None
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in FILES else node.module, node.lineno
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        yield from ((str(name.value), node.lineno) for name in node.args[:1] if isinstance(name, ast.Constant))
    for child in ast.iter_child_nodes(node):
        yield from _imports(path, child)


def _part(module: str) -> str:
    return module.split(".")[1]


def test_every_part_of_the_package_has_its_place() -> None:
    assert {_part(name) for name in OWN} <= set(ORDER), "add the new part to ORDER, where CONTRIBUTING.md puts it"


@pytest.mark.parametrize("name", OWN)
def test_a_module_imports_only_what_stands_to_its_left(name: str) -> None:
    wrong = []
    for module, line in _imports_of(name):
        if module.split(".")[0] != "pixeltune":
            continue
        assert module != "pixeltune", f"{name}:{line} imports from the package's root; name the module"
        if _part(module) != _part(name) and ORDER.index(_part(module)) >= ORDER.index(_part(name)):
            wrong.append(f"line {line} imports {module}")
    assert not wrong


@pytest.mark.parametrize(("library", "homes"), HOMES.items())
def test_a_library_has_its_home(library: str, homes: set[str]) -> None:
    users = {name for name in FILES for module, _ in _imports_of(name) if module.split(".")[0] == library}
    assert users, f"nobody imports {library}: is the test still right?"
    assert {name for name in users if _part(name) not in homes} == set()


def test_there_are_no_import_cycles() -> None:
    """Of the imports that run when a module is imported; between parts of the package the order rules out the rest."""
    graph = {name: {module for module, _ in _imports_at_once(name) if module in OWN} - {name} for name in OWN}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle


def test_configuration_is_free_of_torch() -> None:
    left = ORDER[: ORDER.index("data")]
    for name in OWN:
        if _part(name) in left:
            assert not {module for module, _ in _imports_of(name) if module.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize("package", [pixeltune, pixeltune.space], ids=lambda package: package.__name__)
def test_every_public_name_resolves_and_is_known_to_type_checkers(package: Any) -> None:
    tree = ast.parse(FILES[package.__name__].read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == package._HOMES
    assert sorted(typed) == sorted(package.__all__) == dir(package)
    for name, home in typed.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        package.fitt  # noqa: B018 - the access itself is what is tested


def _python(code: str, *, folder: Path, arguments: tuple[str, ...] = ()) -> object:
    """What `code` prints as JSON, in a process of its own."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT.parent),
        "PIXELTUNE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOADED = f"[name for name in {HEAVY!r} if name in sys.modules]"


def test_importing_pixeltune_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import json, sys
import pixeltune
dir(pixeltune)
print(json.dumps({LOADED}))
"""
    assert _python(code, folder=tmp_path) == []


def test_reading_rows_loads_neither_pandas_nor_torch(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from pixeltune.config import TrialConfig
    from pixeltune.results.store import SearchStore

    store = SearchStore(str(tmp_path), "tiny")
    config = TrialConfig.build(
        {"data": {"name": "digits"}, "model": {"family": "gated"}, "likelihood": {"name": "categorical"}}
    )
    now = datetime.now(UTC)
    row = {"trial": "00000", "attempt": 1, "number": 0, "status": "finished", "started_at": now, **config.flat()}
    store.write_trial(row)
    store.write_curve("00000", 1, [{"reported_at": now, "images_seen": 32, "valid_bits_per_dim": 2.0}])
    code = """
import json, sys
from pixeltune.results.store import SearchStore
store = SearchStore(sys.argv[1], "tiny")
assert store.trials()[0]["status"] == "finished"
assert store.curve("00000")[0]["images_seen"] == 32
print(json.dumps([name for name in ("pandas", "torch", "ray") if name in sys.modules]))
"""
    assert _python(code, folder=tmp_path, arguments=(str(tmp_path),)) == []


def test_list_and_every_help_load_nothing_heavy(tmp_path: Path) -> None:
    """They answer in a tenth of a second; pydantic alone takes twice as long to import."""
    code = f"""
import argparse, contextlib, io, json, sys
from pixeltune.cli import command_line, main
from pixeltune.cli.search import launch
verbs = next(action for action in command_line()._actions if isinstance(action, argparse._SubParsersAction)).choices
assert {{"search", "train", "config", "doctor"}} < set(verbs)
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert launch(["--list"]) == 0
    for entry, words in [(launch, []), (main, []), *((main, [verb]) for verb in verbs)]:
        with contextlib.suppress(SystemExit):
            entry([*words, "--help"])
assert out.getvalue().count("usage: ") == 2 + len(verbs)
assert "digits_quick" in out.getvalue()
print(json.dumps({LOADED}))
"""
    assert _python(code, folder=tmp_path) == []


def test_the_commands_answer_before_torch_and_ray_are_loaded(tmp_path: Path) -> None:
    code = """
import contextlib, io, json, sys
from pixeltune.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert main(["search", "--list"]) == 0
    assert main(["config"]) == 0
assert "digits_quick" in out.getvalue()
print(json.dumps([name for name in ("torch", "ray", "pandas") if name in sys.modules]))
"""
    assert _python(code, folder=tmp_path) == []


def test_no_two_classes_have_one_name() -> None:
    """A reader who looks for a class by its name finds one."""
    found = [
        node.name
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name: count for name, count in Counter(found).items() if count > 1} == {}
