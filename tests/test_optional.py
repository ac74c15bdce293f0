"""tests/support/optional.py names every program that the code starts and may be missing; what is missing skips."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import optional
from tests.support.optional import OTHER_NAMES, PACKAGES, PROGRAMS, find_program, require, why_not

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = {
    "cat",
    "env",
    "hostname",
    "python",
    "ray",
    "sh",
    "sleep",
    "test",
    "torchrun",
    "touch",
    "true",
}
"""Programs of every POSIX system, of Python's own environment, or of packages that are always installed."""

ALWAYS_INSTALLED = {
    *(
        "PIL",
        "aiohttp",
        "annotated_types",
        "argcomplete",
        "cryptography",
        "filelock",
        "hypothesis",
        "jsonschema",
        "numpy",
    ),
    *("optuna", "pandas", "psutil", "pyarrow", "pydantic", "pydantic_core", "pytest", "ray", "requests"),
    *("rich", "safetensors", "scipy", "sklearn", "tomli_w", "torch", "torchvision", "yaml"),
}
"""Packages of a plain installation with the test group."""

STARTERS = {
    *(f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")),
    *("shutil.which", "find_program", "os.execvp", "os.system", "os.popen", "host.run", "first.run", "second.run"),
}
"""Functions whose first argument is a program or a command line; `wrappers` finds ours around them."""

FILES = [path for folder in ("pixeltune", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


def wrappers(tree: ast.AST) -> set[str]:
    """Return the starters, and the functions of a file that hand a parameter of theirs to one as its first argument."""
    names = set(STARTERS)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    while True:
        found = {function.name for function in functions if function.name not in names and _wraps(function, names)}
        if not found:
            return names
        names |= found


def _wraps(function: ast.FunctionDef, names: set[str]) -> bool:
    arguments = function.args
    parameters = {each.arg for each in (*arguments.posonlyargs, *arguments.args, arguments.vararg) if each}
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names and node.args:
            first = node.args[0]
            while isinstance(first, ast.List | ast.Tuple) and first.elts:
                first = first.elts[0]
            first = first.value if isinstance(first, ast.Starred) else first
            if isinstance(first, ast.Name) and first.id in parameters - {"self"}:
                return True
    return False


def programs_of(tree: ast.AST) -> Iterator[str]:
    """Yield each program that a literal of a call names, as the first word of a list, a tuple or the call."""
    starters = wrappers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in starters and node.args:
            first = node.args[0]
            while isinstance(first, ast.List | ast.Tuple) and first.elts:
                first = first.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value.split(" ")[0]  # of a whole line for a shell
        if isinstance(node, ast.List | ast.Tuple) and node.elts:  # a command line that is kept in a variable
            first = node.elts[0]
            if isinstance(first, ast.Constant) and first.value in PROGRAMS:
                yield str(first.value)


def started() -> dict[str, set[str]]:
    """Return the programs that the code starts by name, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for name in programs_of(ast.parse(path.read_text(encoding="utf-8"))):
            if re.fullmatch(r"[\w+.-]+", name) and not name.startswith("-"):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_program_that_is_started_is_on_the_list() -> None:
    known = {*PROGRAMS, *itertools.chain(*OTHER_NAMES.values()), *ALWAYS}
    unknown = {name: sorted(files) for name, files in started().items() if name not in known}
    assert unknown == {}, "name the program in tests/support/optional.py, or it is not skipped where it is missing"


def test_a_program_that_is_not_on_the_list_is_found() -> None:
    code = "subprocess.run(['tmux', 'ls']); shutil.which('xterm'); subprocess.Popen(('sshd', '-D')); os.system('tar x')"
    assert sorted(programs_of(ast.parse(code))) == ["sshd", "sshd", "tar", "tmux", "xterm"]


def test_a_program_behind_a_function_of_ours_is_found() -> None:
    code = """
def answer(*words):
    return subprocess.run(words)
def ask(name):
    return answer(name, "-v")
ask("xterm")
"""
    assert list(programs_of(ast.parse(code))) == ["xterm"]


def test_every_package_beyond_a_plain_installation_is_on_the_list() -> None:
    """Each import is of the standard library, of a requirement or the test group, ours, or on the list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    imported_as = {"mlflow-skinny": "mlflow"}
    requirements = (requirement.partition(">")[0] for names in extras.values() for requirement in names)
    assert {name for name, extra in PACKAGES.items() if extra} == {
        imported_as.get(each, each.replace("-", "_")) for each in requirements
    }
    of_others = {
        "botocore": "boto3",
        "choreographer": "kaleido",
        "markupsafe": "jinja2",
        "nbformat": "nbclient",
        "werkzeug": "moto",
    }
    ours = {"pixeltune", "tests", "benchmarks"} | {path.stem for path in (ROOT / "benchmarks").iterdir()}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in (name.partition(".")[0] for name in names):
                known = name in sys.stdlib_module_names or name in ALWAYS_INSTALLED or name in ours
                assert known or of_others.get(name, name) in PACKAGES, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("name", ["rsync", "plotly"])
def test_what_is_missing_skips_with_the_way_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional.shutil, "which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(optional.importlib.util, "find_spec", lambda _name: None)
    expected = "needs rsync: apt-get install rsync" if name == "rsync" else "needs plotly: uv sync"
    assert why_not(name) == expected
    with pytest.raises(pytest.skip.Exception, match=expected):
        require(name)


def test_a_name_that_is_not_on_the_list_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        why_not("xterm")


def test_a_program_is_found_under_its_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / OTHER_NAMES["chromium"][-1]
    other.write_text("#!/bin/sh\n", encoding="ascii")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("chromium") == str(other)
