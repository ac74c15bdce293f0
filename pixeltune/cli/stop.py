"""`pixeltune stop SEARCH [TRIAL ...]`: end trials of a search that runs, or its launch, from any shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_storage, say
from pixeltune.cli.completion import complete_searches
from pixeltune.errors import StoreError
from pixeltune.format import enumerated

if TYPE_CHECKING:
    from pixeltune.results.parquet_io import Row
    from pixeltune.results.store import SearchStore


def add_verb(verbs: Any) -> None:
    """Add `pixeltune stop`."""
    parser = verbs.add_parser(
        "stop",
        help="end trials of a search that runs, or its launch as Ctrl-C does",
        examples=("pixeltune stop cifar_gated", "pixeltune stop cifar_gated 7 12 --storage s3://bucket/results"),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="its name in the storage")
    search.completer = complete_searches  # argcomplete reads it
    parser.add_argument(
        "trials",
        nargs="*",
        metavar="TRIAL",
        help="trials to end, each by its number or a unique beginning [the launch]",
    )
    add_storage(parser)
    parser.set_defaults(verb=stop)


def stop(options: argparse.Namespace) -> int:
    """Write the requests; the launch honours them within seconds, a trial at its next message."""
    from pixeltune.results.stop_requests import request_stop
    from pixeltune.results.store import SearchStore

    store = SearchStore(options.storage, options.search)
    trials = _running(store, options.trials)
    request_stop(store.folder, trials)
    if trials:
        say(
            f"{store.search}: stop requested of {enumerated(trials)}; numbers so far stay, and no later launch runs "
            "them again."
        )
    else:
        say(f"{store.search}: stop requested, as by Ctrl-C; the command that started it resumes it.")
    return EXIT_OK


def _running(store: SearchStore, references: Sequence[str]) -> list[str]:
    """Return the trials that are meant; StoreError if the search does not run, or one of them can no longer end."""
    from pixeltune.search.attempt import UNDECIDED
    from pixeltune.search.trial_reference import match_trial

    store.manifest()  # raises if there is no such search
    if store.holder() is None:
        raise StoreError(f"a search must run to be stopped, but no launch works on {store.search}")
    rows = {row["trial"]: row for row in store.trials()}
    if not store.launch():  # `pixeltune train` writes none
        _require_one_process(store.search, rows.values())
        if references:
            raise StoreError(
                f"trials can be stopped in a search, but {store.search} is a single training; name no trial to stop it"
            )
    trials = [match_trial(reference, list(rows), store.search) for reference in references]
    for trial in trials:
        if rows[trial]["status"] not in UNDECIDED:
            raise StoreError(
                f"a trial must run to be stopped, but {store.search}/{trial} is {rows[trial]['status']}; "
                f"pixeltune status {store.search} shows those that do"
            )
    return list(dict.fromkeys(trials))


def _require_one_process(name: str, rows: Iterable[Row]) -> None:
    """Refuse a training of several processes under torchrun, which look for no requests."""
    from pixeltune.search.attempt import UNDECIDED

    if any(row["status"] in UNDECIDED and (row["workers"] or 1) > 1 for row in rows):
        raise StoreError(f"a training must run in one process to be stopped, but {name} has several; stop it by Ctrl-C")
