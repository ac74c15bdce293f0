"""Output in any encoding, to readers that go and disks that fill: nothing ends because a line cannot be printed."""

from __future__ import annotations

import errno
import io
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pixeltune
from pixeltune.cli import main
from pixeltune.cli.entry import run_checked
from pixeltune.cli.output import lasting_output, plain

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "utf-8"]
SAID = "3 × 4 … – − ≤ σ² █ ─ é → ½ 猫 \udcff"


class Pipe(io.RawIOBase):
    """What a process writes to; from `full_after` bytes on each write fails."""

    def __init__(self, full_after: float = float("inf"), error: int = errno.EPIPE) -> None:
        super().__init__()
        self.content, self._full_after, self._error = b"", full_after, error

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(self.content) >= self._full_after:
            raise OSError(self._error, "refused")
        self.content += bytes(data)
        return len(data)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pipe]]:
    """Make stdout or stderr of the process a pipe, strict about its encoding as PYTHONIOENCODING can make it."""

    def stream(name: str, encoding: str = "utf-8", **pipe: Any) -> Pipe:
        raw = Pipe(**pipe)
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, f"__{name}__", text)
        monkeypatch.setattr(sys, name, text)
        kept.append(text)
        return raw

    kept: list[io.TextIOWrapper] = []
    yield stream
    for text in kept:  # what is left in a buffer has nowhere to go
        text.detach().detach()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_any_character_can_be_printed_in_any_encoding(name: str, encoding: str, process: Callable[..., Pipe]) -> None:
    pipe = process(name, encoding)

    def command() -> int:
        print(SAID, file=getattr(sys, name))
        return 0

    assert run_checked("pixeltune", command) == 0
    said = pipe.content.decode(encoding)
    assert said.count("\n") == 1
    assert said.startswith("3 × 4" if encoding in ("latin-1", "cp1252", "utf-8") else "3 x 4")
    if encoding == "ascii":
        assert said == "3 x 4 ... - - <= sigma2 # - e -> 1/2 ? ?\n"
    if encoding == "utf-8":
        assert said == SAID.replace("\udcff", "?") + "\n"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["config"], ["columns"], ["nonsense ×"], ["show", "×"]]
)
def test_every_command_prints_in_any_encoding(words: list[str], encoding: str, process: Callable[..., Pipe]) -> None:
    out, err = process("stdout", encoding), process("stderr", encoding)
    try:
        code: Any = main(words)
    except SystemExit as leave:
        code = leave.code
    assert code == (2 if "×" in words[-1] else 0)
    said = (err if code else out).content.decode(encoding)
    assert said
    assert "Traceback" not in said


def test_logging_and_rich_print_in_any_encoding(process: Callable[..., Pipe]) -> None:
    from rich.console import Console
    from rich.table import Table

    out, err = process("stdout", "ascii"), process("stderr", "ascii")

    def command() -> int:
        handler = logging.StreamHandler()
        handler.handle(logging.makeLogRecord({"msg": "a × b"}))
        table = Table("×")
        table.add_row("…")
        Console(width=40).print(table)
        return 0

    assert run_checked("pixeltune", command) == 0
    assert err.content == b"a x b\n"
    assert b"| x" in out.content
    assert b"| ..." in out.content


def test_a_reader_that_goes_ends_nothing(process: Callable[..., Pipe]) -> None:
    process("stdout", full_after=100)
    err = process("stderr", full_after=0)
    done = []

    def command() -> int:
        for number in range(10_000):
            print("a line of a training", flush=True)
            done.append(number)
        print("an error", file=sys.stderr, flush=True)
        return 0

    assert run_checked("pixeltune", command) == 0
    assert len(done) == 10_000
    assert err.content == b""


def test_a_full_disk_ends_nothing_and_is_reported(process: Callable[..., Pipe]) -> None:
    """What was asked for on stdout is not there, so the exit code says so."""
    process("stdout", full_after=0, error=errno.ENOSPC)
    err = process("stderr")
    done = []

    def command() -> int:
        print("the table")
        done.append(True)
        return 0

    assert run_checked("pixeltune", command) == 2
    assert done
    assert err.content == b"pixeltune: its output must be writable, but is not (refused)\n"


def test_afterwards_the_streams_are_as_they_were(process: Callable[..., Pipe]) -> None:
    """For a program that calls a command as a function."""
    process("stdout", "latin-1")
    before = sys.stdout, sys.stdout.errors
    with lasting_output():
        assert sys.stdout is not before[0]
        assert sys.stdout.encoding == "latin-1"
    assert (sys.stdout, sys.stdout.errors) == before
    with pytest.raises(UnicodeEncodeError):
        print("…")


def test_a_missing_stream_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a parent closed it, or in a program without a console."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run_checked("pixeltune", lambda: print("×") or 0) == 0


def test_what_pixeltune_prints_has_a_likeness_in_ascii() -> None:
    """`?` says nothing."""
    text = "".join(path.read_text(encoding="utf-8") for path in Path(pixeltune.__file__).parent.rglob("*.py"))
    used = {character for character in text if not character.isascii() and not unicodedata.combining(character)}
    assert "×" in used
    assert {character for character in used if plain(character) == "?"} == set()
    assert all(plain(character).isascii() for character in used)
