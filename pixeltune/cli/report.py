"""`pixeltune report SEARCH…`: one HTML file about searches, to share; its figures as SVG, PDF and PNG for a paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, add_storage, positive, require_writable, say, writing
from pixeltune.cli.completion import complete_searches
from pixeltune.errors import ConfigError, PixeltuneError
from pixeltune.format import bytes_in, counted
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from pixeltune.report.figures.chart import Chart

_TOP = 5


def add_verb(verbs: Any) -> None:
    """Add `pixeltune report`."""
    parser = verbs.add_parser(
        "report",
        help="one HTML file about a search: tables, figures, samples, commands",
        examples=(
            "pixeltune report digits_quick",
            "pixeltune report digits_quick --figures figures",
            "pixeltune report digits_quick digits_long --out both.html",
        ),
    )
    search = parser.add_argument(
        "search",
        nargs="+",
        metavar="SEARCH",
        help="a search, a training or a final in the storage; of several, one page with a leaderboard of all",
    )
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="HTML to write [SEARCH-report.html here; report.html for several]",
    )
    figures = parser.add_mutually_exclusive_group()
    figures.add_argument(
        "--figures", metavar="FOLDER", help="write the figures there too, as SVG, PDF and PNG for a paper"
    )
    figures.add_argument("--png", metavar="FOLDER", help="the same, as PNG alone")
    parser.add_argument(
        "--top", type=positive, default=_TOP, metavar="K", help=f"best trials to highlight, with samples [{_TOP}]"
    )
    add_storage(parser)
    parser.set_defaults(verb=report)


def report(options: argparse.Namespace) -> int:
    """Read each search once, and write the requested files."""
    from pixeltune.results.store import SearchStore

    # Cheap checks first: the searches, then the output paths, then packages that may be missing.
    names = list(dict.fromkeys(options.search))
    out = options.out or (f"{names[0]}-report.html" if len(names) == 1 else "report.html")
    stores = [SearchStore(options.storage, name) for name in names]
    for store in stores:
        store.manifest()
    require_html(out)
    require_writable(out)
    folder, formats = (options.png, ("png",)) if options.png else (options.figures, ("svg", "pdf", "png"))
    if folder:
        require_writable(files.join(folder, f"curves.{formats[0]}"))
    require_packages("a report", "plotly", "jinja2", "optuna", *(["kaleido"] if folder else []))
    from pixeltune.report.page_builder import all_charts, write_report
    from pixeltune.report.snapshot import read_snapshot
    from pixeltune.report.static_figures import require_browser, write_figures

    if folder:
        require_browser()
    snapshots = [read_snapshot(store) for store in stores]
    charts = all_charts(snapshots, options.top)
    trials = sum(len(snapshot.rows) for snapshot in snapshots)
    with writing(out):
        size = write_report(snapshots, out, top=options.top, stills=_stills(charts))
    say(f"Wrote {out} ({bytes_in('MB', size)}): {counted(trials, 'trial')}")
    if folder:
        with writing(folder):
            locations = write_figures(charts, folder, formats)
        say(f"Wrote {counted(len(locations), 'file')} of {counted(len(charts), 'figure')} to {folder}")
    return EXIT_OK


def _stills(charts: Sequence[Chart]) -> dict[str, str]:
    """Return images of the figures where they can be drawn; the page draws its figures without them too."""
    from pixeltune.report.static_figures import has_browser, stills

    if not has_browser():
        return {}
    try:
        return stills(charts)
    except PixeltuneError as error:
        say(f"The page holds no images of its figures for print: {error}")
        return {}


def require_html(location: str) -> None:
    """Refuse a name that no browser would open as a page."""
    if not location.lower().endswith((".html", ".htm")):
        raise ConfigError(f"--out must be a .html file, but got {location!r}")
