"""A compiled training on a machine without a compiler is refused before it starts, with what to install."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pixeltune.errors import ConfigError
from pixeltune.preflight.checks import compiles_for, node_facts
from pixeltune.space import Budget, Resources, SearchSpace
from pixeltune.training.compiler import missing_compiler, require_compiler
from pixeltune.training.loop import fit
from tests.support.tiny_trainings import tiny


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all programs, none of which is a compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CC", "CXX", "TORCH_INDUCTOR_INSTALL_GXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def install(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n", encoding="ascii")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("device_type", "programs", "environment", "missing"),
    [
        ("cpu", (), {}, "g++ is not installed"),
        ("cpu", ("g++",), {}, ""),
        ("cpu", ("clang++", "c++", "gcc"), {}, "g++ is not installed"),
        ("cpu", ("clang++",), {"CXX": "clang++"}, ""),
        ("cpu", ("ccache",), {"CXX": "ccache clang++"}, ""),
        ("cpu", ("g++",), {"CXX": "g++-99 -m64"}, "CXX names g++-99, which is not installed"),
        ("cpu", ("g++",), {"CXX": "g++ '-m64"}, 'CXX must be a command, but is "g++ \'-m64" (No closing quotation)'),
        ("cpu", (), {"CXX": " "}, "g++ is not installed"),
        ("cpu", (), {"TORCH_INDUCTOR_INSTALL_GXX": "1"}, ""),
        ("cuda", (), {}, "gcc or clang is not installed"),
        ("cuda", ("clang",), {}, ""),
        ("cuda", ("g++",), {}, "gcc or clang is not installed"),
        ("cuda", ("gcc",), {"CC": "icx"}, "CC names icx, which is not installed"),
    ],
)
def test_what_is_missing(
    device_type: str,
    programs: tuple[str, ...],
    environment: dict[str, str],
    missing: str,
    installed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in programs:
        install(installed, name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert missing_compiler(device_type) == missing
    if not missing:
        require_compiler(device_type)


@pytest.mark.usefixtures("installed")
def test_a_compiled_training_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixeltune.training.loop.build_model", lambda *_: pytest.fail("it builds"))
    with pytest.raises(ConfigError) as caught:
        fit(tiny(train__compile=True), device="cpu")
    assert str(caught.value) == (
        "`train.compile` needs a compiler, but g++ is not installed; "
        "install g++, name another compiler in CXX, or set `train.compile` to false"
    )


@pytest.mark.usefixtures("installed")
def test_others_need_no_compiler() -> None:
    assert next(fit(tiny(), device="cpu")).images_seen == 96


@pytest.mark.parametrize(("system", "name"), [("darwin", "clang++"), ("win32", "cl"), ("linux", "g++")])
def test_each_system_has_a_compiler_of_its_own(
    system: str, name: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(shutil, "which", lambda program: str(installed / program) if program == name else None)
    assert missing_compiler("cpu") == ""


@pytest.mark.usefixtures("installed")
def test_a_search_looks_for_a_compiler_where_a_trial_is_compiled() -> None:
    from optuna.distributions import CategoricalDistribution

    space = SearchSpace(base=tiny(), budget=Budget(trials=1), title="")
    assert compiles_for(None) == compiles_for(space) == ""
    assert node_facts().compiler_error == ""
    compiled = replace(space, base=tiny(train__compile=True))
    varied = replace(space, vary={"train.compile": CategoricalDistribution((False, True))})
    assert compiles_for(compiled) == compiles_for(varied) == "cpu"
    assert compiles_for(replace(compiled, resources=Resources(gpus=1.0))) == "cuda"
    assert node_facts(compiles_for="cpu").compiler_error == "g++ is not installed"
