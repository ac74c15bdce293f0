"""`pixeltune report SEARCH`: one HTML file about a search, to share; its figures as PNG for a paper."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, add_storage, positive, require_writable, say, writing
from pixeltune.cli.completion import complete_searches
from pixeltune.errors import ConfigError
from pixeltune.format import bytes_in, counted
from pixeltune.packages import require_packages

_TOP = 5


def add_verb(verbs: Any) -> None:
    """Add `pixeltune report`."""
    parser = verbs.add_parser(
        "report",
        help="one HTML file about a search: tables, figures, samples, commands",
        examples=("pixeltune report digits_quick", "pixeltune report digits_quick --png figures"),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="a search, a training or a final in the storage")
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument("--out", metavar="FILE", help="HTML to write [SEARCH-report.html in the working directory]")
    parser.add_argument("--png", metavar="FOLDER", help="write the figures there too, as PNG for a paper")
    parser.add_argument(
        "--top", type=positive, default=_TOP, metavar="K", help=f"best trials to highlight, with samples [{_TOP}]"
    )
    add_storage(parser)
    parser.set_defaults(verb=report)


def report(options: argparse.Namespace) -> int:
    """Read the search once, and write the requested files."""
    from pixeltune.results.store import SearchStore

    # Cheap checks first: the search, then the output paths, then packages that may be missing.
    out = options.out or f"{options.search}-report.html"
    store = SearchStore(options.storage, options.search)
    store.manifest()
    require_html(out)
    require_writable(out)
    if options.png:
        require_writable(files.join(options.png, "curves.png"))
    require_packages("a report", "plotly", "jinja2", "optuna", *(["kaleido"] if options.png else []))
    from pixeltune.report.page_builder import all_charts, require_browser, write_papers, write_report
    from pixeltune.report.snapshot import read_snapshot

    if options.png:
        require_browser()
    snapshot = read_snapshot(store)
    with writing(out):
        size = write_report(snapshot, out, top=options.top)
    say(f"Wrote {out} ({bytes_in('MB', size)}): {counted(len(snapshot.rows), 'trial')}")
    if options.png:
        with writing(options.png):
            locations = write_papers(all_charts(snapshot, options.top), options.png)
        say(f"Wrote {counted(len(locations), 'figure')} to {options.png}")
    return EXIT_OK


def require_html(location: str) -> None:
    """Refuse a name that no browser would open as a page."""
    if not location.lower().endswith((".html", ".htm")):
        raise ConfigError(f"--out must be a .html file, but got {location!r}")
