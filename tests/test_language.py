"""The prose of the project: plain words in code, docs and messages, and a line for every parameter of a public name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pixeltune as pt
from pixeltune.config.families import FamilyConfig
from pixeltune.likelihoods.base import Likelihood
from pixeltune.models.density import DensityModel

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("pixeltune", "docs", "search_spaces", "cluster")
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "launch.py")
SUFFIXES = {".py", ".md", ".ipynb", ".html", ".yaml"}

BANNED = (
    *("told", "tells", "beside", "besides", "anew", "lie", "lies", "stands", "nobody", "whoever", "whatever"),
    *("of which", "is said", "gone on with", "goes on to", "nor is", "that it may"),
)
"""Words of another register than the documentation of PyTorch or Optuna."""
AS_CONJUNCTION = r"[,;] for (?:it|they|there|he|we|you)\b"
NO_VERB = ("What", "Whether", "Of", "Where", "How", "Who", "Which", "When")
"""The docstring of a function says what it does, and starts with the verb."""


def banned_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the word of each banned word."""
    pattern = re.compile(rf"(?<![\w`])(?:{'|'.join(BANNED)})\b|{AS_CONJUNCTION}", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), 1):
        yield from ((number, match.group()) for match in pattern.finditer(line))


def without_verb(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each function whose docstring does not begin with what it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words and words[0] in NO_VERB:
                yield node.lineno, node.name


def _prose() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [*found, *(ROOT / name for name in FILES)]


def test_the_guard_finds_what_it_should() -> None:
    assert list(banned_in("It is told.\nNothing else, for it stands.")) == [(1, "told"), (2, ", for it"), (2, "stands")]
    assert not list(banned_in("The search continues; untold `lies` and beliefs are no hits."))
    assert list(without_verb('def f():\n    """Whether it is."""')) == [(1, "f")]
    assert not list(without_verb('def f():\n    """Return whether it is."""'))


def test_the_words_are_plain() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in _prose()
        for number, word in banned_in(path.read_text(encoding="utf-8"))
    ]
    assert not hits, "\n".join(hits)


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in sorted((ROOT / "pixeltune").rglob("*.py"))
        for number, name in without_verb(path.read_text(encoding="utf-8"))
    ]
    assert not hits, "\n".join(hits)


CONTRACTS = (Likelihood, FamilyConfig, DensityModel)
"""Classes that are not in `pixeltune.__all__`, and that users subclass or call."""


def _missing(function: Callable[..., object]) -> list[str]:
    """Return the parameters that the docstring has no line for."""
    document = inspect.getdoc(function) or ""
    parameters = [
        name for name in inspect.signature(function).parameters if name not in ("self", "cls") and name[0] != "_"
    ]
    return [name for name in parameters if not re.search(rf"^\s*\**{name}(?: \([^)]*\))?:", document, re.MULTILINE)]


def _methods(public: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, member in vars(public).items():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


@pytest.mark.parametrize("name", sorted(pt.__all__))
def test_every_parameter_of_a_public_name_has_a_line(name: str) -> None:
    """A parameter in `Args:`, a field of a model in its description, any other field in the docstring of its class."""
    public = getattr(pt, name)
    assert inspect.getdoc(public)
    fields = getattr(public, "model_fields", None)
    if fields is None:
        assert not _missing(public)
    else:
        assert not [field for field, info in fields.items() if not info.description]


@pytest.mark.parametrize("public", [*filter(inspect.isclass, (getattr(pt, name) for name in pt.__all__)), *CONTRACTS])
def test_every_parameter_of_a_method_has_a_line(public: type) -> None:
    missing = {name: names for name, function in _methods(public) if (names := _missing(function))}
    assert not missing
