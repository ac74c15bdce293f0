"""`pixeltune final`: the best configurations of a search, retrained and measured on the test set."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUTED,
    add_settings,
    add_storage,
    console,
    positive,
    settings_of,
)
from pixeltune.cli.completion import complete_searches
from pixeltune.cli.leaderboard import final_legend, final_table
from pixeltune.cli.notify import add_notify, addresses_of, notified, require_no_address_in_job
from pixeltune.cli.submit import add_place, submit
from pixeltune.cli.tables import print_table
from pixeltune.cli.track import add_track, require_trackers, tracked
from pixeltune.format import counted
from pixeltune.packages import require_packages

if TYPE_CHECKING:
    from rich.console import Console

    from pixeltune.results.final_selection import Selection
    from pixeltune.results.store import SearchStore
    from pixeltune.search.final import Request

_TOP = 3
_SEEDS = 3


def add_verb(verbs: Any) -> None:
    """Add `pixeltune final`."""
    parser = verbs.add_parser(
        "final",
        help="retrain the best of a search on train + validation, and read the test set",
        examples=(
            "pixeltune final digits_quick --top 2 --seeds 3",
            "pixeltune final digits_quick --trial 7 --trial 3 --seeds 5",
        ),
    )
    search = parser.add_argument("search", metavar="SEARCH", help="a search, or a training, in the storage")
    search.completer = complete_searches  # argcomplete reads it
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--top", type=positive, metavar="K", help=f"the K best configurations [{_TOP}]")
    which.add_argument(
        "--trial", action="append", default=[], metavar="T", dest="trials", help="this trial; repeatable, for --top"
    )
    parser.add_argument(
        "--seeds", type=positive, default=_SEEDS, metavar="M", help=f"seeds each; more of them later go on [{_SEEDS}]"
    )
    parser.add_argument("--images", type=positive, metavar="N", help="train for N images, the schedule stretched")
    parser.add_argument("--workers", type=positive, metavar="N", help="workers that train a run together")
    parser.add_argument("--name", default="", metavar="NAME", help="name of the results folder [SEARCH-final]")
    parser.add_argument("--hours", type=float, metavar="H", help="stop this launch after H hours of wall time")
    add_place(parser)
    add_track(parser)
    add_notify(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=final)


def final(options: argparse.Namespace) -> int:
    """Choose once, run what is left, and print the outcome."""
    from pixeltune.results.identity import require_new_name
    from pixeltune.search.final import open_final, require_search

    request = _request(options)
    require_new_name(request.store.search)
    if options.cluster is None:  # else the storage may be reachable only there
        require_search(request)
    require_packages("a final", "optuna", "rich", "ray")
    from pixeltune.cli.search_summary import farewell_at_end, show_failures
    from pixeltune.cluster.ray_backend import RayBackend
    from pixeltune.search.callbacks import Callbacks, SearchCallback
    from pixeltune.search.progress import Progress
    from pixeltune.search.run import run_search
    from pixeltune.tune.ray_address import resolve_address

    out = console()
    if options.cluster is not None:
        require_no_address_in_job(options)
        return submit(options, request.store.search)
    require_trackers(options.track)
    urls = addresses_of(options)
    place = resolve_address(options.address)
    out.print(str(place), highlight=False, soft_wrap=True)
    with notified(urls, request.store.search) as ending, farewell_at_end(out, place.address), request.store.lock():
        store, manifest, space = open_final(request)
        assert manifest.final is not None, "open_final wrote it"
        _show_choice(out, store, manifest.final, request)
        shown = SearchCallback() if options.quiet else Progress(out)
        with tracked(options.track, store, shown.say) as tracking:
            outcome = run_search(
                space, store, manifest, backend=RayBackend(place.address), callback=Callbacks(shown, tracking)
            )
            ending.of_search(outcome)
        out.print(f"Ended: {outcome.reason}.", highlight=False)
        show_final(out, store, manifest.final)
        show_failures(out, outcome.state)
    if outcome.interrupted:
        from pixeltune.cli.common import command_again

        out.print(f"To go on: {command_again()}", highlight=False, soft_wrap=True)
        return EXIT_INTERRUPTED
    return EXIT_OK if outcome.has_result else EXIT_REFUTED


def _request(options: argparse.Namespace) -> Request:
    from pixeltune.search.final import Request

    workers = {} if options.workers is None else {"resources.workers": options.workers}
    return Request(
        search=options.search,
        storage=options.storage,
        name=options.name,
        top=None if options.trials else options.top or _TOP,
        trials=tuple(options.trials),
        seeds=options.seeds,
        images=options.images,
        settings=settings_of(options) | workers,
        hours=options.hours,
    )


def _show_choice(out: Console, store: SearchStore, selection: Selection, request: Request) -> None:
    """Print the choice, the trials left out, and whether the search would choose differently now."""
    from pixeltune.search.final import moved_on

    chosen = selection.chosen
    seeds = ", ".join(map(str, selection.seeds(request.seeds)))
    _say(
        out,
        f"[bold]{store.search}[/bold]: {counted(len(chosen), 'configuration')} of {selection.search}, by "
        f"{selection.objective}, on train and validation; seeds {seeds}; the test set is read once a run, at its end",
    )
    for item in chosen:
        length = selection.images or item.best_images
        why = ""
        if selection.images is None and item.best_images < item.images:
            why = f", where it was best of {item.images:,}"
        _say(out, f"  {item.trial}  {selection.objective} {item.value:.6g}; {counted(length, 'image')}{why}")
    if selection.left_out:
        _say(out, f"Fewer than asked for: {'; '.join(selection.left_out)}.")
    now = moved_on(request, selection)
    if now:
        _say(
            out,
            f"The search has gone on and would now choose {', '.join(now)}; this final keeps to its choice, "
            "another --name makes a new one.",
        )


def show_final(out: Console, store: SearchStore, selection: Selection) -> None:
    """Print the leaderboard of means, published numbers next to the configuration that validation ranked first, and
    where the results are stored."""
    from pixeltune.published.nearest import comparison_lines
    from pixeltune.results.final_statistics import first_choice, leaderboard_of, mean_row
    from pixeltune.results.ranking import counted_statuses

    rows = store.trials()
    _say(out, f"Runs: {counted_statuses(rows) or 'none'}.")
    places = leaderboard_of(store)
    if not places:
        return
    print_table(out, *final_table(places, selection))
    for line in final_legend(places):
        _say(out, line)
    first = first_choice(places, selection)
    name = f"{selection.search}/{first['from_trial']}, mean of {counted(first['seeds'], 'seed')},"
    for line in comparison_lines(mean_row(first, rows), name=name):
        _say(out, line)
    _say(out, f'Rows: {store.trials_folder}    nats of each test image: pt.read_images("{store.folder}")')


def _say(out: Console, line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True)
