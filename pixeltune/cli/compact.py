"""`pixeltune compact SEARCH`: merge a search's many small files into few large ones, which read faster."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.common import EXIT_OK, add_storage, say
from pixeltune.cli.completion import complete_searches
from pixeltune.format import counted, is_or_are


def add_verb(verbs: Any) -> None:
    """Add `pixeltune compact`."""
    parser = verbs.add_parser(
        "compact",
        help="merge a search's many small files into few large ones",
        examples=("pixeltune compact digits_quick", "pixeltune compact cifar_gated --storage s3://bucket/results"),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="its name in the storage")
    search.completer = complete_searches  # argcomplete reads it
    add_storage(parser)
    parser.set_defaults(verb=compact_search)


def compact_search(options: argparse.Namespace) -> int:
    """Merge the files; refuse while a launch holds the search."""
    from pixeltune.results.compaction import compact
    from pixeltune.results.store import SearchStore

    store = SearchStore(options.storage, options.search)
    store.manifest()  # raises if there is no such search, and makes no folder
    with store.lock():
        done = compact(store)
    old = (
        f" Of these {done.without_digest:,} had no digest, so that damage might not show."
        if done.without_digest
        else ""
    )
    say(
        f"{options.search}: {counted(done.merged, 'file')} merged into {done.written:,}; "
        f"{counted(done.left, 'file')} {is_or_are(done.left)} there now.{old}"
    )
    return EXIT_OK
