"""The option for trackers, and the callback of a launch that shows it in them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltune.results.store import SearchStore
    from pixeltune.search.callbacks import SearchCallback

_TRACKERS = ("tensorboard", "wandb", "mlflow")


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable --track."""
    parser.add_argument(
        "--track",
        action="append",
        default=[],
        choices=_TRACKERS,
        help="show each trial in this tracker too, with its settings, reports, status and galleries; repeatable",
    )


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot work on this machine, before anything starts."""
    if names:
        from pixeltune.search import trackers

        trackers.require_trackers(names)


@contextmanager
def tracked(names: Sequence[str], store: SearchStore, say: Callable[[str], None]) -> Iterator[SearchCallback]:
    """Yield the callback that shows a search in these trackers; at the end they get what is left.

    say: prints warnings.
    """
    from pixeltune.search.callbacks import SearchCallback

    if not names:
        yield SearchCallback()
        return
    from pixeltune.search.trackers import make_trackers
    from pixeltune.search.tracking import Tracking

    tracking = Tracking(make_trackers(names, store), store, say)
    try:
        yield tracking
    finally:
        tracking.close()
