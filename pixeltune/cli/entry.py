"""The outermost step of every command: a missing dependency or an old Python becomes one line with what to run.

This module uses the standard library alone, and syntax that Python 3.7 parses: it runs where nothing is installed.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

from pixeltune.cli.output import lasting_output
from pixeltune.packages import checkout_folder, has_package

OLDEST_PYTHON = (3, 11)
DEPENDENCIES = (
    "argcomplete",
    "filelock",
    "numpy",
    "optuna",
    "pandas",
    "PIL",
    "psutil",
    "pyarrow",
    "pydantic",
    "yaml",
    "ray",
    "rich",
    "safetensors",
    "sklearn",
    "scipy",
    "tomli_w",
    "torch",
    "torchvision",
)
"""The dependencies in pyproject.toml, by the names under which they are imported."""

_INSTALLED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "tomli_w": "tomli-w", "yaml": "pyyaml"}
"""Names on the package index of packages that are imported under another name."""

_NEEDED_BY_ALL = "pydantic"
"""If it is missing, no dependency has been installed. Which of the others a command needs differs."""

_EXIT_USER_ERROR = 2


def run_checked(program: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code; 2, and one line on stderr, where what it needs is not installed.

    Args:
        program: What the user called: `launch.py` or `pixeltune`.
        command: Imports what it needs and does the work.
    """
    with lasting_output() as output:
        code = _run_checked(program, command)
        loss = output.loss()
        if loss is None:
            return code
        print(f"{program}: its output must be writable, but is not ({loss.strerror})", file=sys.stderr)
        return code or _EXIT_USER_ERROR


def _run_checked(program: str, command: Callable[[], int]) -> int:
    if sys.version_info[:2] < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        return _refuse(program, f"Python must be 3.11 or newer, but it is {found}", "install a newer Python")
    if not has_package(_NEEDED_BY_ALL):
        return _refuse_without(program, _NEEDED_BY_ALL)
    try:
        return command()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in DEPENDENCIES and not _is_imported_by_a_package(error):
            raise
        return _refuse_without(program, package)


def _is_imported_by_a_package(error: ModuleNotFoundError) -> bool:
    """Return whether an installed package lacks one of its own dependencies; else the import is ours or the user's."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [name for name in frames if not name.startswith("<frozen importlib")]
    return any(Path(files[-1]).is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))


def _refuse_without(program: str, package: str) -> int:
    pip = f'run "python3 -m pip install {_INSTALLED_AS.get(package, package)}", then the same command'
    return _refuse(program, f"{package} must be installed, but it is not", pip)


def _refuse(program: str, what: str, advice: str) -> int:
    """Print one line and return the exit code. advice: used outside a checkout; in one, uv installs everything."""
    print(f"{program}: {what}; {_uv_commands(program) or advice}", file=sys.stderr)
    return _EXIT_USER_ERROR


def _uv_commands(program: str) -> str:
    """Return the two commands that install everything and repeat the user's command; "" outside a checkout."""
    folder = checkout_folder()
    if folder is None:
        return ""
    uv_run = ["uv", "run", "--no-dev"]
    if folder != Path.cwd():
        uv_run += ["--project", str(folder)]
    words = [os.path.relpath(folder / program) if program.endswith(".py") else program, *sys.argv[1:]]
    again = " ".join(shlex.quote(word) for word in [*uv_run, *words])
    return f'run "python3 -m pip install uv" and "{again}"'
