"""Failures that a user can act on: one line that says what holds, what was got, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PixeltuneError(Exception):
    """An error that the user can correct; commands print it as one line and exit with 2."""


class ConfigError(PixeltuneError):
    """A configuration, a key or a search space that cannot be built."""


class DataError(PixeltuneError):
    """A data set that is missing, damaged, or not of the form its source promises."""


class MissingDataError(DataError):
    """A data set whose files are not on this machine."""


class CheckpointError(PixeltuneError):
    """A checkpoint that is missing, cut short, or of another configuration."""


class StoreError(PixeltuneError):
    """A results folder that cannot be read or written, or that belongs to another search."""


class AuditError(PixeltuneError):
    """A model that is not the distribution it claims to be: it leaks, or does not sum to one."""


class CodecError(PixeltuneError):
    """Images that cannot be coded, or a compressed file that is damaged, of another model or of other numbers."""


class PausedError(PixeltuneError):
    """Training was asked to pause between two reports; its state says how far it came."""


class NodePreemptedError(PixeltuneError):
    """The machine under a trial is about to be taken away: its state is saved, and it continues elsewhere."""


class DivergedError(PixeltuneError):
    """Training met a value that is not finite; the weights are those from before that step."""


class MemoryShortError(PixeltuneError, MemoryError):
    """A training that the memory cannot hold, known before it begins. needed: bytes of its predicted peak."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class SearchError(PixeltuneError):
    """A search that cannot start or continue: no cluster, too few resources, another launch running."""


class MissingPackageError(PixeltuneError):
    """Something that needs a package which is not installed.

    Args:
        missing: What needs which package.
        advice: How to get it on this machine; not a part of what results keep.
    """

    def __init__(self, missing: str, advice: str = "") -> None:
        super().__init__(f"{missing}; {advice}" if advice else missing)
        self.missing = missing


def first_line(error: BaseException, fallback: str | None = None, *, with_type: bool = False) -> str:
    """Return the first line of an exception's message.

    Args:
        error: The exception.
        fallback: The text to return where the message is empty; by default the name of the exception's class.
        with_type: Put the name of the class before the line.
    """
    name = type(error).__name__
    lines = str(error).strip().splitlines()
    if not lines:
        return fallback or name
    return f"{name}: {lines[0]}" if with_type else lines[0]


def did_you_mean(word: str, known: Iterable[str], *, as_code: bool = False) -> str:
    """Return `did you mean NAME?` with the nearest known name, or "" where none is near.

    Args:
        word: The unknown name as it was given.
        known: The names to choose from.
        as_code: Put the name between backticks.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    if not near:
        return ""
    return f"did you mean `{near[0]}`?" if as_code else f"did you mean {near[0]}?"
