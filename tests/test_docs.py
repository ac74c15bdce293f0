"""The commands and examples of the README and of docs/: all parse, and all run that this machine has the means for.

A page is gone through from its top in one empty folder, as a reader would. `$ cat FILE` shows a file, which is made so.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pixeltune.cli import command_line
from pixeltune.cli.search import launch_line
from pixeltune.data import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "cluster" / "README.md"]

NEEDS = {
    "cifar": "needs CIFAR-10",
    "mnist": "needs MNIST",
    "imagenet": "needs ImageNet",
    "s3://": "needs a bucket",
    "--address": "needs a running cluster",
    "ray ": "needs a cluster",
    "cluster check": "needs a file that is filled in",
    "cluster prepare": "needs an account with AWS",
    "--cluster ": "needs a running cluster",
    "cluster status": "needs a running cluster",
    "cluster logs": "needs a running cluster",
    "cluster stop": "needs a running cluster",
    "auth_token": "needs a cluster",
    "ssh-keygen": "makes a key",
    "aws ": "needs an account with AWS",
    "gcloud ": "needs an account with Google Cloud",
    "gs://": "needs a bucket",
    "docker ": "needs Docker",
    "kubectl ": "needs Kubernetes",
    "/shared/": "needs a cluster's storage",
    "sbatch ": "needs Slurm",
    "squeue ": "needs Slurm",
    "scancel ": "needs Slurm",
    "gpu.py": "needs a GPU",
    "--png": "needs Chrome or Chromium",
    "pip install": "installs",
    "uv sync": "installs",
    "pytest": "would run itself",
    "my_search.py": "needs a search of the reader's own",
    "--track ": "needs the packages of trackers",
    "pixeltune dashboard": "runs until Ctrl-C",
    "ruff": "is no command of pixeltune",
    "mypy": "is no command of pixeltune",
    "…": "is a form to be filled in",
}
"""What a command says that keeps it from being run here, and why."""

PROGRAMS = {"launch.py": [str(ROOT / "launch.py")], "pixeltune": ["-m", "pixeltune"]}
PROGRAMS |= {"torchrun": ["-m", "torch.distributed.run"]}


@dataclass(frozen=True)
class Example:
    """A command or a piece of Python of a page. files: those that the page has shown before it."""

    text: str
    is_python: bool = False
    shown_file: tuple[str, str] | None = None

    @property
    def words(self) -> list[str]:
        """The command without `uv run` before it."""
        words = shlex.split(self.text, comments=True)
        if words[:2] != ["uv", "run"]:
            return words
        return words[3:] if words[2] == "--no-dev" else words[2:]

    @property
    def given_elsewhere(self) -> list[str]:
        """The command that `ray exec` and `ray job submit` are given, without the `cd` before it; else none."""
        if self.words[:2] != ["ray", "exec"]:
            return []
        return shlex.split(self.words[-1].rpartition("&& ")[2].rstrip("'"))

    @property
    def needs(self) -> str:
        """Why it is not run here, or ""."""
        return "" if self.is_python else next((why for sign, why in NEEDS.items() if sign in self.text), "")


def examples(page: Path) -> Iterator[Example]:
    """The fenced commands and Python of a page, in order."""
    for kind, block in re.findall(r"^```(console|python)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if kind == "python":
            yield Example(block, is_python=True)
        else:
            for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                shown = re.fullmatch(r"cat (\S+)", command.strip())
                for one in re.split(r" && (?=uv run )", command):  # others are in quotes, for another machine
                    yield Example(one, shown_file=(shown[1], output) if shown else None)


def commands(page: Path) -> list[Example]:
    return [each for each in examples(page) if not each.is_python and not each.shown_file]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_readme_begins_with_a_command_that_searches_and_one_that_tests() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block
    search, tests = block[1].splitlines()
    install, _, run = search.removeprefix("$ ").partition(" && ")
    assert install == "python3 -m pip install uv"
    assert run.split() == ["uv", "run", "--no-dev", "launch.py", "--search", "digits_quick"]
    assert tests == "$ uv run pytest"
    assert [each.text.strip() for each in commands(ROOT / "README.md")][:3] == [install, run, "uv run pytest"]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_data_set_that_a_page_names_is_a_source(page: Path) -> None:
    named = re.findall(r'data\.name ?= ?"?([\w:]+)', page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in SOURCES and ":" not in name] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_of_ours_parses(page: Path) -> None:
    parsers = {"launch.py": launch_line(), "pixeltune": command_line()}
    for command in commands(page):
        words = command.given_elsewhere or command.words
        if words[0] in ("python", "torchrun") and "pixeltune" in words:
            words = words[words.index("pixeltune") :]
        words = words[1:] if words[0] == "python" else words
        if words[0] in parsers:
            parsers[words[0]].parse_args(words[1:])  # exits where it does not parse


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_search_that_is_run_here_is_small(page: Path) -> None:
    """A page with hundreds of trials would keep the slow tests for hours."""
    for command in commands(page):
        if command.words[0] == "launch.py" and not command.needs:
            options = launch_line().parse_args(command.words[1:])
            assert options.dry_run or options.list or (options.trials or 0) <= 16, command.text


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_program_is_known(page: Path) -> None:
    for command in commands(page):
        assert command.needs or command.words[0] in PROGRAMS or command.words[0] == "python", command.text


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("page", [page for page in PAGES if any(not each.needs for each in examples(page))], ids=_name)
def test_every_example_runs(page: Path, tmp_path: Path) -> None:
    for example in examples(page):
        if example.shown_file:
            name, content = example.shown_file
            (tmp_path / name).write_text(content)
        elif not example.needs:
            _run(example, tmp_path)


def _run(example: Example, folder: Path) -> None:
    if example.is_python:
        arguments = ["-c", example.text]
    else:
        program, *rest = example.words[1:] if example.words[0] == "python" else example.words
        arguments = [*PROGRAMS[program], *rest]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PIXELTUNE_CACHE": str(folder / ".cache")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{example.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
