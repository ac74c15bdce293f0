"""Commands run in this process, and a trial so small that it trains at once."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from pixeltune.cli import main
from pixeltune.cli.search import launch

TINY = """
seed = 3
[data]
name = "digits"
fraction = 0.25
num_valid = 64
[model]
family = "gated"
layers = 2
channels = 8
kernel_size = 3
dropout = 0.25
[likelihood]
name = "categorical"
[optim]
lr = 0.003
ema = 0.9
schedule = "cosine"
[train]
images = 256
batch_size = 32
report_every = 128
precision = "float32"
"""
"""343 training images, two reports."""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(*words: str) -> Said:
    """`pixeltune WORDS`, or `launch.py WORDS` where the first word is an option."""
    entry = launch if words and words[0].startswith("-") else main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = entry(list(words))
        except SystemExit as leave:  # argparse
            code = leave.code if isinstance(leave.code, int) else 1
    return Said(code, out.getvalue(), err.getvalue())


def refused(*words: str) -> str:
    """The one line with which a command refuses, at exit code 2."""
    said = command(*words)
    assert said.code == 2, said
    assert said.err.count("\n") == 1, said.err
    assert said.err.endswith("\n")
    assert "Traceback" not in said.err
    assert "Traceback" not in said.out
    return said.err


def done(*words: str) -> str:
    """What a command that succeeds prints."""
    said = command(*words)
    assert said.code == 0, said
    return said.out


def write_tiny(path: Path | str = "tiny.toml") -> str:
    """The tiny configuration as a file."""
    Path(path).write_text(TINY, encoding="utf-8")
    return str(path)
