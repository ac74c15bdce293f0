"""Programs, packages and rights that a machine may lack, and how a test that needs one is skipped.

`python tests/support/optional.py --names` prints the programs that `.ci/bare` hides, and `--packages` the Debian
packages of those that are missing. It needs no package itself.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable

PROGRAMS = {
    "c++": "g++",
    "cc": "gcc",
    "chromium": "chromium",
    "git": "git",
    "ip": "iproute2",
    "mount": "mount",
    "mutool": "mupdf-tools",
    "nsenter": "util-linux",
    "pdflatex": "texlive-latex-recommended",
    "ps": "procps",
    "rsync": "rsync",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
    "umount": "mount",
    "unshare": "util-linux",
}
"""Every program that pixeltune, its tests or its benchmarks start and that may be missing, and its Debian package."""

OTHER_NAMES = {
    "c++": ("g++", "clang++"),
    "cc": ("gcc", "clang"),
    "chromium": ("chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
}
"""Names under which the same program is installed elsewhere."""

PACKAGES = {
    "apprise": "notify",
    "boto3": "aws",
    "cmaes": "samplers",
    "constriction": "codec",
    "jinja2": "report",
    "kaleido": "report",
    "matplotlib": "paper",
    "mlflow": "mlflow",
    "optuna_dashboard": "dashboard",
    "plotly": "report",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "duckdb": "",
    "moto": "",
    "nbclient": "",
    "playwright": "",
    "polars": "",
}
"""Packages that a plain installation lacks, and the extra of pixeltune that brings each; "" where only tests use it."""


NOT_IN_DEV = ("apprise", "mlflow", "tensorboard", "wandb")
"""Packages of extras that the dev group leaves out."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also where it is installed under another name or outside PATH."""
    system = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return next(filter(None, (shutil.which(each, path=system) for each in (name, *OTHER_NAMES.get(name, ())))), None)


def _why_no_program(name: str) -> str:
    return "" if find_program(name) else f"needs {name}: apt-get install {PROGRAMS[name]}"


def _why_no_package(name: str) -> str:
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    extra = f" --inexact --extra {PACKAGES[name]}" if name in NOT_IN_DEV else ""
    return "" if found else f"needs {name}: uv sync{extra}"


def _why_not_root() -> str:
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "needs root"


_RIGHTS: dict[str, Callable[[], str]] = {"root": _why_not_root}


def why_not(*names: str) -> str:
    """Return why something that needs `names` cannot run here, or "" where it can.

    Each name is one of PROGRAMS, of PACKAGES, or "root".
    """
    for name in names:
        if name in PROGRAMS:
            reason = _why_no_program(name)
        elif name in PACKAGES:
            reason = _why_no_package(name)
        else:
            reason = _RIGHTS[name]()
        if reason:
            return reason
    return ""


def require(*names: str) -> None:
    """Skip the test, or the module that is being imported, where one of `names` is missing."""
    import pytest

    if reason := why_not(*names):
        pytest.skip(reason, allow_module_level=True)


if __name__ == "__main__":
    missing = {PROGRAMS[name] for name in PROGRAMS if find_program(name) is None}
    others = [other for names in OTHER_NAMES.values() for other in names]
    print(*(sorted(missing) if sys.argv[1:] == ["--packages"] else [*PROGRAMS, *others]), sep="\n")
