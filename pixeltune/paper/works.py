"""The works behind the published results, `published_works.csv`, and how LaTeX cites them.

Each source of the published table, an arXiv id or a title where there is none, has a row here. There may be more.
Columns:

source: the arXiv id, or the title, as `published.csv` has it. key: the citation key, unique.
kind: the type of the BibTeX entry: `inproceedings`, `article` or `misc`.
authors: names in BibTeX's own form, separated by " and ". title, year, venue: as published; a preprint has no venue.
arxiv, doi, url: where it can be read; blank where there is none.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pixeltune.errors import StoreError
from pixeltune.published.table import PublishedResult

_COLUMNS = ("source", "key", "kind", "authors", "title", "year", "venue", "arxiv", "doi", "url")
_VENUE_FIELDS = {"inproceedings": "booktitle", "article": "journal", "misc": "howpublished"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "’": "'",
    "“": "``",
    "”": "''",
}
"""Characters that LaTeX reads as commands, or that its standard fonts lack."""

_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u0304": "=",
    "\u0306": "u",
    "\u030a": "r",
    "\u030c": "v",
    "\u0327": "c",
    "\u0328": "k",
}
"""Combining characters, and LaTeX's commands for them."""

_LETTERS = {"ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "æ": r"{\ae}", "ı": r"{\i}"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A row of `published_works.csv`; its columns are explained in the module's head. None where blank."""

    source: str
    key: str
    kind: str
    authors: str
    title: str
    year: int
    venue: str | None
    arxiv: str | None
    doi: str | None
    url: str | None


@cache
def published_works() -> Mapping[str, Work]:
    """Return the works that are shipped with pixeltune, by source."""
    text = resources.files("pixeltune.published").joinpath("published_works.csv").read_text(encoding="utf-8")
    return parse_works(text)


def parse_works(text: str) -> dict[str, Work]:
    """Read a table of works; a StoreError names the line and what is wrong with it."""
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise StoreError(f"a table of works must have the columns {', '.join(_COLUMNS)}, but got {reader.fieldnames}")
    works: dict[str, Work] = {}
    keys: set[str] = set()
    for number, line in enumerate(reader, start=2):
        work = _parsed(line, number)
        if work.source in works or work.key in keys:
            raise StoreError(f"line {number} of the works must have a source and key of its own, but got {work.source}")
        works[work.source] = work
        keys.add(work.key)
    return works


def source_of(result: PublishedResult) -> str:
    """Return what names the work of a published result: its arXiv id, or its title where it has none."""
    return result.arxiv or result.title


def work_of(result: PublishedResult) -> Work:
    """Return the work of a published result; one made of the result's own columns where the table of works lacks it.

    The latter is for rows that a user adds. Its key is made of the title and the year.
    """
    known = published_works().get(source_of(result))
    if known is not None:
        return known
    plain = unicodedata.normalize("NFKD", result.title).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    return Work(
        source=source_of(result),
        key=f"own-{'-'.join(words[:8]) or 'work'}-{result.year}",
        kind="misc",
        authors="",
        title=result.title,
        year=result.year,
        venue=None,
        arxiv=result.arxiv,
        doi=None,
        url=None,
    )


def bibtex(works: Iterable[Work]) -> str:
    """Return BibTeX of the works by key. StoreError where two works would share a key."""
    chosen: dict[str, Work] = {}
    for work in works:
        if chosen.setdefault(work.key, work) != work:
            raise StoreError(
                f"works must have citation keys of their own, but {work.key} names {chosen[work.key].source!r} and "
                f"{work.source!r}; change the title of one in your published.csv"
            )
    return "\n".join(_entry(chosen[key]) for key in sorted(chosen))


def parse_bibtex(text: str) -> dict[str, dict[str, str]]:
    """Return the fields of each entry by key. Strict: StoreError for anything that `bibtex` would not write."""
    entries: dict[str, dict[str, str]] = {}
    for block in filter(None, (part.strip() for part in text.split("\n\n"))):
        first, *lines, last = block.split("\n") if block.count("\n") >= 2 else (block, "")
        head = re.fullmatch(r"@(inproceedings|article|misc)\{([A-Za-z0-9:.-]+),", first)
        if head is None or last != "}":
            raise StoreError(f"a BibTeX entry must begin with @kind{{key, and end with }}, but got {first!r}")
        if head[2] in entries:
            raise StoreError(f"a BibTeX key must name one entry, but {head[2]} names two")
        entries[head[2]] = dict(_field(line, head[2]) for line in lines)
        if not {"title", "year"} <= entries[head[2]].keys():
            raise StoreError(f"a BibTeX entry must have a title and a year, but {head[2]} lacks one")
    return entries


def escape_tex(text: str) -> str:
    """Return text as LaTeX prints it: nothing in it is a command."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return "".join(map(_escaped, plain))


def _escaped(letter: str) -> str:
    if letter in _SPECIAL or letter in _LETTERS:
        return _SPECIAL.get(letter) or _LETTERS[letter]
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"{{\\{_ACCENTS[parts[1]]}{{{parts[0]}}}}}"
    return letter


def _parsed(line: Mapping[str | None, Any], number: int) -> Work:
    given = {name: (line.get(name) or "").strip() for name in _COLUMNS}
    lacking = [name for name in ("source", "key", "kind", "authors", "title", "year") if not given.get(name)]
    if lacking or None in line or not given["year"].isdecimal() or given["kind"] not in _VENUE_FIELDS:
        why = f"{', '.join(lacking)}" if lacking else "a known kind, a year and as many fields as the header"
        raise StoreError(f"line {number} of the works must have {why}, but got {dict(line)}")
    return Work(
        source=given["source"],
        key=given["key"],
        kind=given["kind"],
        authors=given["authors"],
        title=given["title"],
        year=int(given["year"]),
        venue=given["venue"] or None,
        arxiv=given["arxiv"] or None,
        doi=given["doi"] or None,
        url=given["url"] or None,
    )


def _entry(work: Work) -> str:
    fields = {
        "author": escape_tex(work.authors),
        "title": f"{{{escape_tex(work.title)}}}",
        _VENUE_FIELDS[work.kind]: escape_tex(work.venue or ""),
        "year": str(work.year),
        "eprint": work.arxiv or "",
        "archiveprefix": "arXiv" if work.arxiv else "",
        "doi": work.doi or "",
        "url": work.url or "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{work.kind}{{{work.key},", *lines, "}", ""])


def _field(line: str, key: str) -> tuple[str, str]:
    match = re.fullmatch(r"  ([a-z]+) = \{(.*)\},", line)
    if match is None or not _is_balanced(match[2]):
        raise StoreError(f"a BibTeX field must be `name = {{balanced text}},`, but {key} has {line!r}")
    return match[1], match[2]


def _is_balanced(text: str) -> bool:
    depth = 0
    for letter in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            return False
    return depth == 0
