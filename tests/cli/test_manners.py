"""Options that all commands have, examples in the help, and completion."""

from __future__ import annotations

import argparse
import shlex
from importlib import metadata
from pathlib import Path

import pytest

from pixeltune.cli import command_line
from pixeltune.cli.common import Parser
from pixeltune.cli.completion import complete_searches
from pixeltune.cli.search import launch_line
from tests.support.commands import command, done, refused, write_tiny


def verbs() -> dict[str, Parser]:
    parser = command_line()
    (action,) = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("name", verbs())
def test_each_verb_shows_two_examples_that_parse(name: str) -> None:
    examples = verbs()[name].examples
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        words = words[: words.index(">")] if ">" in words else words
        assert words[:2] == ["pixeltune", name]
        command_line().parse_args(words[1:])
        assert example in command(name, "--help").out
    assert all(example.startswith("python launch.py ") for example in launch_line().examples)


def test_the_help_shows_each_verb_once_under_a_group() -> None:
    text = command_line().format_help()
    for name in verbs():
        assert sum(line.split()[:1] == [name] for line in text.splitlines()) == 1, name
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        "search:",
        "results:",
        "one model:",
        "coding:",
        "reference:",
    ]


def test_the_version_is_that_of_the_package() -> None:
    assert metadata.version("pixeltune") in command("--version").out


def test_quiet_training_prints_the_result_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = done("train", "--config", write_tiny(), "--quiet").splitlines()
    assert lines[-1].startswith("Best ")
    assert not [line for line in lines if line.split()[0] in ("128", "256", "images")]


def test_verbose_shows_where_an_error_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("status", "nowhere").count("\n") == 1
    said = command("status", "nowhere", "--verbose")
    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1] == refused("status", "nowhere").strip()


def test_searches_of_the_storage_complete(tmp_path: Path) -> None:
    for name in ("digits", "digits_wide", "mnist"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "search.json").write_text("{}", encoding="utf-8")
    options = argparse.Namespace(storage=str(tmp_path))
    assert sorted(complete_searches("dig", options)) == ["digits", "digits_wide"]
    assert complete_searches("", argparse.Namespace(storage=str(tmp_path / "none"))) == []
    assert complete_searches("", argparse.Namespace(storage="s3://bucket/results")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    assert "pixeltune" in done("completion", shell)
    assert "did you mean" in refused("completion", f"{shell}h")
