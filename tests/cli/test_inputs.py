"""Inputs that gave a correct-looking number for something else than the user thinks, at the command line."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import numpy as np
import pytest

from pixeltune.data.load import forget_loaded
from tests.support.commands import TINY, command, done, refused, write_tiny

BINARY = TINY.replace('name = "digits"\nfraction = 0.25', 'name = "array"\npath = "set.npz"')
"""Of images in a file."""


@pytest.fixture
def sparse(own_folder: Path) -> str:
    """A configuration of images of zeros and ones, whose levels are not declared."""
    forget_loaded()
    np.savez("set.npz", train=(np.random.default_rng(0).random((400, 8, 8)) < 0.2).astype(np.uint8))
    Path("sparse.toml").write_text(BINARY, encoding="utf-8")
    return "sparse.toml"


@pytest.mark.parametrize("binarise", ["static", "dynamic", "threshold"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
def test_undeclared_levels_are_not_binarised(sparse: str, binarise: str, likelihood: str) -> None:
    words = ("--set", f"data.binarise={binarise}", "--set", f"likelihood.name={likelihood}")
    said = refused("train", "--config", sparse, *words)
    assert "only 2 of 256 levels occur (0, 1)" in said
    assert "declare 2 as `levels` of a .npz" in said
    assert not list(Path().glob("results/*/*.json"))


def test_undeclared_levels_are_reported_before_training(sparse: str) -> None:
    note = "only 2 of 256 levels occur (0, 1): bits/dim count all 256"
    first, *others = done(
        "train", "--config", sparse, "--set", "train.images=32", "--set", "train.report_every=32"
    ).splitlines()
    assert first.startswith("Data note: ")
    assert note in first
    assert not any(note in line for line in others)
    assert note in done("show", "sparse")
    assert "Data: array 1×8×8, 256 levels, no labels; 336 train, 64 validation, 0 test" in done("status", "sparse")
    assert "images: 1×8×8, 256 levels, no labels; 336 train, 64 validation, 0 test" in done("show", "sparse")


@pytest.mark.parametrize("location", ["s3:/bucket/results", "file:/tmp/r", "C:/results", "foo://r", ""])
@pytest.mark.parametrize(
    "words",
    [
        ("train", "--config", "tiny.toml"),
        ("--search", "digits_quick", "--dry-run"),
        ("status", "tiny"),
        ("show", "tiny"),
        ("compare", "tiny"),
        ("sample", "tiny"),
    ],
)
def test_a_mistaken_storage_is_refused_and_makes_no_folder(words: tuple[str, ...], location: str) -> None:
    write_tiny()
    assert refused(*words, "--storage", location).startswith(("pixeltune: a ", "launch.py: a "))
    assert [path.name for path in Path().iterdir()] == ["tiny.toml"]


def test_a_storage_that_is_a_file_is_refused() -> None:
    write_tiny()
    assert "must be writable, but" in refused("train", "--config", "tiny.toml", "--storage", "tiny.toml")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--config", "tiny.toml", "--storage", "~/results"),
        ("train", "--config", "~/tiny.toml"),
        ("train", "--config", "tiny.toml", "--set", "data.path=~/images", "--set", "data.name=folder"),
        ("cluster", "check", "~/cluster.yaml"),
        ("status", "tiny", "--storage", "~/results"),
    ],
)
def test_without_a_home_folder_a_tilde_is_one_line(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user without an entry in /etc/passwd, where HOME is not set."""
    write_tiny()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    assert "needs a home folder, but there is none for ~/" in refused(*words)


@pytest.mark.parametrize(("setting", "shown"), [("optim.lr=.005", "0.005"), ("data.path=2024", "2024")])
def test_settings_are_read_by_the_type_of_their_key(setting: str, shown: str) -> None:
    said = done("config", "--config", write_tiny(), "--set", setting)
    (line,) = [line for line in said.splitlines() if line.startswith(setting.partition("=")[0])]
    assert line.split()[1] == shown


def test_a_compiled_training_without_a_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny()
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CXX", raising=False)
    says = "is not installed; install "
    words = ("--set", "train.compile=true")
    assert says in refused("train", "--config", "tiny.toml", *words)
    assert not Path("results").exists()
    plan = done("--search", "digits_quick", "--dry-run", *words)
    (line,) = [line for line in plan.splitlines() if line.startswith("Compiler: ")]
    assert line.endswith("or set `train.compile` to false")
    looked = command("doctor", "--search", "digits_quick", *words)
    assert looked.code == 1
    assert "is not installed" in looked.out
