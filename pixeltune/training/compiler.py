"""The compiler that torch.compile starts: C++ for a CPU, by Inductor; C for a GPU, by Triton.

Inductor takes CXX, else g++ (clang++ on macOS, cl on Windows): `torch/_inductor/config.py`, `cpp.cxx`. Triton takes CC,
else gcc or clang: `triton/runtime/build.py`. Without one a training would end at its first step.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys

from pixeltune.errors import ConfigError


def missing_compiler(device_type: str) -> str:
    """Return in words which compiler torch.compile lacks on this machine; "" where it has one.

    Args:
        device_type: `cpu` or `cuda`, where the network trains.
    """
    variable, names = _candidates(device_type)
    given = os.environ.get(variable, "").strip()
    if given:
        try:
            program = shlex.split(given)[0]
        except ValueError as error:
            return f"{variable} must be a command, but is {given!r} ({error})"
        return "" if shutil.which(program) else f"{variable} names {program}, which is not installed"
    if os.environ.get("TORCH_INDUCTOR_INSTALL_GXX") and variable == "CXX":
        return ""  # Inductor then installs one
    return "" if any(map(shutil.which, names)) else f"{' or '.join(names)} is not installed"


def require_compiler(device_type: str) -> None:
    """Refuse `train.compile` on a machine without the compiler that it needs.

    Args:
        device_type: `cpu` or `cuda`, where the network trains.

    Raises:
        ConfigError: There is none.
    """
    missing = missing_compiler(device_type)
    if missing:
        raise ConfigError(f"`train.compile` needs a compiler, but {missing}; {compiler_advice(device_type)}")


def compiler_advice(device_type: str) -> str:
    """Return what to do where there is none."""
    variable, names = _candidates(device_type)
    return f"install {names[0]}, name another compiler in {variable}, or set `train.compile` to false"


def _candidates(device_type: str) -> tuple[str, tuple[str, ...]]:
    """Return the environment variable that names a compiler, and what is looked for without it."""
    if device_type == "cuda":
        return "CC", ("gcc", "clang")
    return "CXX", ({"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"),)
