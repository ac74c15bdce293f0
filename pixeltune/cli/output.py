"""Output that cannot fail: a command continues even if a line cannot be encoded or written.

This module uses the standard library alone, and syntax that Python 3.7 parses, as `entry` does.
"""

from __future__ import annotations

import codecs
import errno
import io
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_PLAIN_ERRORS = "pixeltune.plain"
_PLAIN = {
    "×": "x",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "★": "*",
    "·": ".",
    "•": "*",
    "∗": "*",
    "→": "->",
    "←": "<-",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "±": "+-",
    "√": "sqrt",
    "‖": "||",
    "⌈": "[",
    "⌉": "]",
    "§": "S",
    "⊙": "o",
    "⁄": "/",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "─": "-",
    "━": "-",
    "═": "-",
    "│": "|",
    "┃": "|",
    "║": "|",
}
"""Characters that pixeltune and rich print, as ASCII."""

_PLAIN_RANGES = (("\u2500", "\u257f", "+"), ("\u2580", "\u259f", "#"), ("\u2800", "\u28ff", "."))
"""Box drawing, block elements, and the Braille patterns of spinners."""


@contextmanager
def lasting_output() -> Iterator[Output]:
    """Let stdout and stderr take any character, and drop what cannot be written; both are as before afterwards.

    A character that the encoding lacks becomes one like it in ASCII, such as `x` for `×`. A reader that has gone, as
    in `| head`, and a disk that is full end no training.
    """
    codecs.register_error(_PLAIN_ERRORS, _plain)
    before = sys.stdout, sys.stderr
    errors = [(stream, stream.errors) for stream in before if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in errors:
        stream.reconfigure(errors=_PLAIN_ERRORS)
    raws = {name: _keep_writing(name) for name in ("stdout", "stderr")}
    try:
        yield Output(raws["stdout"])
    finally:
        for name in raws:
            _flush(getattr(sys, name))
        sys.stdout, sys.stderr = before
        for stream, old in errors:
            stream.reconfigure(errors=old)


class Output:
    """The state of stdout: whether any printed line was lost."""

    def __init__(self, stdout: _LossyFile | None) -> None:
        self._stdout = stdout

    def loss(self) -> OSError | None:
        """Return why a line on stdout was lost; None if none was, or if the reader closed it."""
        _flush(sys.stdout)
        error = None if self._stdout is None else self._stdout.error
        return None if error is None or error.errno in (errno.EPIPE, errno.EINVAL) else error


class _LossyFile(io.RawIOBase):
    """An open file whose failed writes are dropped. error: the last of them."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw
        self.error: OSError | None = None

    def write(self, data: Any) -> int | None:
        """Write the text, or drop what cannot be written."""
        try:
            written: int | None = self._raw.write(data)
        except OSError as error:
            self.error = error
            return memoryview(data).nbytes
        return written

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        descriptor: int = self._raw.fileno()
        return descriptor

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return bool(self._raw.isatty())


def _keep_writing(name: str) -> _LossyFile | None:
    """Replace a stream of the process with one that drops failed writes; None if it was replaced before."""
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
        return None
    _flush(stream)
    raw = _LossyFile(getattr(stream.buffer, "raw", stream.buffer))
    lasting = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, lasting)
    return raw


def _flush(stream: Any) -> None:
    with suppress(AttributeError, OSError, ValueError):  # there is none, its reader has gone, or it is closed
        stream.flush()


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def plain(character: str) -> str:
    """Return a character as ASCII, `?` if none is like it."""
    if character in _PLAIN:
        return _PLAIN[character]
    for first, last, instead in _PLAIN_RANGES:
        if first <= character <= last:
            return instead
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and " LETTER " in name:
        letter = name.rpartition(" ")[2]
        return letter.capitalize() if " CAPITAL " in name else letter.lower()
    if name.startswith("LATIN ") and " LETTER " in name:  # such as LATIN SMALL LETTER L WITH STROKE
        letter = name.partition(" LETTER ")[2].partition(" WITH ")[0].rpartition(" ")[2]
        return letter.capitalize() if " CAPITAL " in name else letter.lower()
    parts = [_PLAIN.get(part, part) for part in unicodedata.normalize("NFKD", character)]
    return "".join(part for part in parts if part.isascii()) or "?"
