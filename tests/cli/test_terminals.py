"""Commands on a pseudo-terminal of 80 and of 200 columns, and the same commands in a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recorded.recordings import RESULTS

pty = pytest.importorskip("pty", reason="a pseudo-terminal needs POSIX")

COMMANDS = (
    ("list",),
    ("leaderboard", "toy-final"),
    ("leaderboard", "small"),
    ("status", "toy"),
    ("show", "toy/00000"),
    ("compare", "toy"),
    ("config",),
    ("columns",),
)
SCRIPT = """
import sys
from pixeltune.cli import main
for words in {commands!r}:
    print("$$", *words, flush=True)
    print("$$ exit code", main(list(words)), flush=True)
"""
_SENTENCES = ("Not shown", "status is", "pixeltune: results")
"""How lines begin that are no rows of a table; a terminal wraps them."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def storage() -> None:
    """The recorded results, and the trained trial among them as a search of its own."""
    shutil.copytree(RESULTS, "results")
    shutil.copytree("results/toy", "results/small")
    for path in Path("results/small/trials").glob("0000[1-8]*"):
        path.unlink()


def _by_command(text: str) -> dict[str, str]:
    parts = re.split(r"(?m)^\$\$ (?!exit)(.*)$", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    return kept | {"PYTHONPATH": root, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}


def _in_pipe(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(),
        check=True,
    )


def _on_terminal(columns: int) -> str:
    """Return what a process prints that has a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    script = SCRIPT.format(commands=COMMANDS)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=_environment()
    ) as process:
        os.close(theirs)
        chunks = []
        with contextlib.suppress(OSError):  # EIO, once the process has closed its side
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        os.close(ours)
    assert process.returncode == 0, errno.errorcode
    return b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("storage")
def test_tables_fit_a_terminal_and_are_whole_in_a_pipe() -> None:
    piped = _in_pipe(SCRIPT.format(commands=COMMANDS)).stdout
    assert "\x1b" not in piped
    whole = _by_command(piped)
    assert list(whole) == [" ".join(words) for words in COMMANDS]
    assert all(text.rstrip().endswith("exit code 0") for text in whole.values())
    assert "Not shown" not in piped
    assert "| `trial` | string | string, never empty |" in whole["columns"]
    for width in (80, 200):
        shown = _on_terminal(width)
        assert "\x1b[1m" in shown  # titles are bold
        texts = _by_command(ESCAPES.sub("", shown))
        assert list(texts) == list(whole)
        for name, text in texts.items():
            assert text.rstrip().endswith("exit code 0"), name
        for name in ("list", "leaderboard toy-final"):
            assert "3.75490 ± 0.05226" in texts[name]
        assert re.search(r"(?m)^.*00000 .*3\.3753 ", texts["leaderboard small"])
        assert "model.layers = 2  (of 2…3)" in texts["show toy/00000"]
        assert "optim.lr = 0.01  (of 1e-3…1e-1 (log))" in texts["show toy/00000"]
        for name in ("config", "columns", "list", "leaderboard small"):
            lines = [line for line in texts[name].splitlines() if not line.startswith(_SENTENCES)]
            assert max(map(len, lines)) <= width, name
        assert ("Not shown in 80 columns" in texts["leaderboard small"]) == (width == 80)
        assert "whole number, 1…4096" in " ".join(texts["config"].split())
        assert "| `trial`" not in texts["columns"]


@pytest.mark.usefixtures("storage")
def test_a_warning_is_one_line_without_the_place_in_the_source() -> None:
    Path("results/small/trials/00000-1.parquet").write_bytes(b"PAR1 damaged")
    said = _in_pipe(SCRIPT.format(commands=(("leaderboard", "small"),)))
    (line,) = said.stderr.splitlines()
    assert line.startswith("pixeltune: left out 00000-1.parquet of results/small/trials")
    assert "Trials of small: none." in said.stdout
