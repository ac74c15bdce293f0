"""`pixeltune dashboard [SEARCH ...]`: searches in Optuna's dashboard, while they run and afterwards."""

from __future__ import annotations

import argparse
from typing import Any

from pixeltune.cli.common import EXIT_OK, add_storage, say
from pixeltune.cli.completion import complete_searches
from pixeltune.packages import require_packages

_MOST_PORTS = 65535


def add_verb(verbs: Any) -> None:
    """Add `pixeltune dashboard`."""
    parser = verbs.add_parser(
        "dashboard",
        help="serve searches in Optuna's dashboard, live while they run",
        examples=(
            "pixeltune dashboard",
            "pixeltune dashboard digits_quick digits_long --open",
            "pixeltune dashboard --storage s3://bucket/results --port 8080",
        ),
    )
    search = parser.add_argument(
        "search",
        nargs="*",
        metavar="SEARCH",
        help="a search, a training or a final in the storage [all, also those that begin later]",
    )
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument("--port", type=port, default=0, metavar="N", help="port on 127.0.0.1 [one that is free]")
    parser.add_argument("--open", action="store_true", help="open a browser")
    add_storage(parser)
    parser.set_defaults(verb=dashboard)


def dashboard(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; nothing is written."""
    require_packages("the dashboard", "optuna", "optuna_dashboard")
    from pixeltune.report.dashboard_server import DashboardServer
    from pixeltune.results.optuna_storage import ReadOnlyStorage

    storage = ReadOnlyStorage(options.storage, list(dict.fromkeys(options.search)))
    with DashboardServer(storage, options.port) as server:
        say(f"Serving {_what(len(storage.get_all_studies()))} of {options.storage} at {server.url} until Ctrl-C")
        if options.open:
            _open_browser(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            return EXIT_OK
    return EXIT_OK


def _what(searches: int) -> str:
    return "1 search" if searches == 1 else f"{searches:,} searches" if searches else "no search yet"


def _open_browser(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        say("No browser was found here; open the address in one")


def port(text: str) -> int:
    """Return an argument that must be a port."""
    if not text.isdecimal() or not 0 < int(text) <= _MOST_PORTS:
        raise argparse.ArgumentTypeError(f"must be a port, 1 to {_MOST_PORTS}, but got {text!r}")
    return int(text)
