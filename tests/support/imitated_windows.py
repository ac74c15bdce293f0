"""Imitate Windows for the modules of pixeltune, as far as Linux can: what is missing there is missing here.

Only imports by pixeltune are changed, because other packages bring code of their own for each system. Not imitated: how
Windows locks, replaces and names files, and `sys.platform`. As a script: import every module, run the verbs of the
argument (JSON, name to words) in the working directory, and write what came of them to answers.json.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import pkgutil
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
"""Modules that Windows does not have."""
PARTIAL = ("os", "signal", "socket", "time")
"""Modules that Windows has in part."""


def imitate() -> None:
    """Change this process; pixeltune must not be imported yet."""
    assert not any(name.partition(".")[0] == "pixeltune" for name in sys.modules)
    partial = {name: _part_on_windows(name) for name in PARTIAL}
    real_import = builtins.__import__

    def import_on_windows(name: str, globals: Any = None, *args: Any, **kwargs: Any) -> Any:
        if (globals or {}).get("__name__", "").partition(".")[0] == "pixeltune":
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in partial:
                return partial[name]
        return real_import(name, globals, *args, **kwargs)

    builtins.__import__ = import_on_windows
    for method in ("open", "stat", "iterdir", "read_bytes", "read_text", "write_bytes", "write_text"):
        setattr(Path, method, _without_proc(getattr(Path, method)))
    for method in ("exists", "is_dir", "is_file", "glob"):
        setattr(Path, method, _without_proc(getattr(Path, method), ()))


def missing_on_windows(module: str) -> set[str]:
    """Return the names of a module of Python that Linux has and Windows lacks, as typeshed declares them."""
    return _names(module, "linux") - _names(module, "win32")


def _part_on_windows(module: str) -> types.ModuleType:
    part, missing = types.ModuleType(module), missing_on_windows(module)
    assert missing
    part.__dict__.update(
        {key: value for key, value in vars(importlib.import_module(module)).items() if key not in missing}
    )
    return part


def _names(module: str, platform: str) -> set[str]:
    stubs = Path(str(importlib.import_module("mypy").__file__)).parent / "typeshed" / "stdlib"
    path = next(path for path in (stubs / f"{module}.pyi", stubs / module / "__init__.pyi") if path.is_file())
    system = types.SimpleNamespace(platform=platform, version_info=sys.version_info)
    return set(_declared(ast.parse(path.read_text(encoding="utf-8")).body, {"sys": system}))


def _declared(body: list[ast.stmt], scope: dict[str, Any]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):
            holds = eval(ast.unparse(node.test), scope)
            yield from _declared(node.body if holds else node.orelse, scope)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _without_proc(method: Callable[..., Any], *answer: Any) -> Callable[..., Any]:
    """Refuse paths of Linux's own; give `answer` in place of an error where there is one."""

    def refusing(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.parts[:2] in {("/", "proc"), ("/", "sys")}:
            if answer:
                return answer[0]
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return method(self, *args, **kwargs)

    return refusing


def main(verbs: dict[str, list[str]]) -> None:
    """Fill answers.json; see the head of this file."""
    imitate()
    import pixeltune
    from pixeltune.cli import main as run
    from pixeltune.results.store import SearchStore

    names = [module.name for module in pkgutil.walk_packages(pixeltune.__path__, "pixeltune.")]
    answers: dict[str, Any] = {"modules": [name for name in names if not name.endswith("__main__")]}
    for name in answers["modules"]:
        importlib.import_module(name)
    for name, words in verbs.items():
        print(f"== {name}", flush=True)
        try:
            answers[name] = run(words)
        except BaseException as error:
            answers[name] = "".join(traceback.format_exception(error))
    store, frame = SearchStore("results", "toy"), pixeltune.read_results("results/toy")
    with store.lock():
        holder = store.holder()
    answers |= {
        "is held by this process": holder is not None and holder["pid"] == os.getpid(),
        "is held": store.holder() is not None,
        "trials": len(frame),
        "trials of the study": len(pixeltune.study("results/toy").trials),
        "curves": len(pixeltune.read_curves("results")) > 0,
        "front": len(pixeltune.pareto(frame, ("valid_bits_per_dim", "num_parameters"))) > 0,
        "compared": len(pixeltune.compare(frame)) > 0,
    }
    Path("answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
