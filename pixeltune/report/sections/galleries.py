"""The galleries of the best trials, which are stored with a search, up to a size of file that can be sent by mail."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pixeltune import files
from pixeltune.format import counted, listed, size
from pixeltune.report.sections.commands import Command, shown_location, storage_words
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status

MOST_BYTES = 6_000_000
"""Bytes of all pictures together: 8 MB as base64, of the 15 MB that mail servers accept."""


@dataclass(frozen=True)
class GalleryImage:
    """A PNG in base64, with its size in pixels and its texts."""

    base64: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Galleries:
    """The galleries. shown: best trial first. words: what they are, or why there are none. commands: that draw more."""

    shown: Sequence[GalleryImage]
    words: str
    commands: Sequence[Command]


def pictures(snapshot: Snapshot, top: int, most_bytes: int = MOST_BYTES) -> Galleries:
    """Return the galleries of the `top` best trials; of a final, those of its runs."""
    rows = _chosen(snapshot, top)
    shown: list[GalleryImage] = []
    without: list[Row] = []
    heavy: list[str] = []
    left = most_bytes
    for row in rows:
        content = _read(snapshot.store.gallery(row["trial"]))
        picture = None if content is None else _picture(content, row, snapshot)
        if content is None or picture is None:
            without.append(row)
        elif len(content) > left:
            heavy.append(f"{row['trial']} ({size(len(content))})")
        else:
            left -= len(content)
            shown.append(picture)
    words = _words(shown, without, heavy)
    return Galleries(shown, words, [_command(snapshot, row) for row in without[:1]])


def _chosen(snapshot: Snapshot, top: int) -> list[Row]:
    if snapshot.is_final:
        return [row for row in snapshot.rows if row["status"] == Status.FINISHED][:top]
    return snapshot.best(top)


def _read(location: str) -> bytes | None:
    try:
        return files.read_whole(location)
    except OSError:
        return None


def _picture(content: bytes, row: Row, snapshot: Snapshot) -> GalleryImage | None:
    """Return the picture; None where the file is not one."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except (OSError, ValueError):
        return None
    return GalleryImage(
        base64=base64.b64encode(content).decode(),
        width=width,
        height=height,
        alt=f"What {snapshot.search}/{row['trial']} draws: samples above, completions of given upper halves below.",
        caption=_caption(row, snapshot),
    )


def _caption(row: Row, snapshot: Snapshot) -> str:
    name = snapshot.objective
    what = f"Run {row['trial']}, of {row['from_trial']}" if snapshot.is_final else f"Trial {row['trial']}"
    return f"{what}: {title_of(name)} {cell(name, row[name], is_bound=bool(row['is_bound']))}"


def _words(shown: Sequence[GalleryImage], without: Sequence[Row], heavy: Sequence[str]) -> str:
    if not (shown or without or heavy):
        return "There is no trial yet whose samples could be shown."
    parts = (
        [f"What {counted(len(shown), 'trial')} drew, best first, without any choice among the draws."] if shown else []
    )
    if without:
        parts.append(f"No picture was kept of {listed(row['trial'] for row in without)}.")
    if heavy:
        parts.append(f"Left out, so that this file stays small: {listed(heavy)}.")
    return " ".join(parts)


def _command(snapshot: Snapshot, row: Row) -> Command:
    location = shown_location(snapshot.store.gallery(row["trial"]))
    split = "test" if snapshot.is_final else "valid"
    argv = [
        "pixeltune",
        "sample",
        f"{snapshot.search}/{row['trial']}",
        "--gallery",
        "--split",
        split,
        *storage_words(snapshot.store),
    ]
    return Command(
        f"Draws the picture of trial {row['trial']}, where its weights were kept; the next report shows it.",
        shlex.join([*argv, "--out", location]),
    )
