"""`launch.py` and `pixeltune search`: run, resume, preview or list searches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUTED,
    Parser,
    ShowVersion,
    add_galleries,
    add_settings,
    add_storage,
    command_again,
    console,
    natural,
    parse,
    positive,
    run,
    say,
    settings_of,
)
from pixeltune.cli.notify import add_notify, addresses_of, notified, require_no_address_in_job
from pixeltune.cli.proposals import add_proposals, with_proposals
from pixeltune.cli.submit import add_place, submit
from pixeltune.cli.track import add_track, require_trackers, tracked
from pixeltune.errors import ConfigError
from pixeltune.files import require_location
from pixeltune.packages import require_packages
from pixeltune.space import SAMPLERS, SCHEDULERS, list_searches, search_path, summarise_search

if TYPE_CHECKING:
    from rich.console import Console

    from pixeltune.cli.notify import Ending
    from pixeltune.space import SearchSpace

_WORTH_MEASURING = 2_000_000
"""Training images of a search from which on its cost is measured before it starts: it takes seconds."""


def launch(argv: Sequence[str] | None = None) -> int:
    """Run launch.py."""
    return run(search, parse(launch_line(), argv, "search"))


def launch_line() -> Parser:
    """Return the parser of launch.py."""
    examples = ("python launch.py --search digits_quick", "python launch.py --search cifar_gated --dry-run")
    parser = Parser(prog="launch.py", description="Search a space with Ray Tune and Optuna.", examples=examples)
    parser.add_argument("--version", action=ShowVersion)
    _add_options(parser)
    return parser


def add_verb(verbs: Any) -> None:
    """Add `pixeltune search`."""
    parser = verbs.add_parser(
        "search",
        help="run or resume a search (the same as launch.py)",
        examples=("pixeltune search --list", "pixeltune search --search digits_quick --trials 32"),
    )
    _add_options(parser)
    parser.set_defaults(verb=search)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--search", metavar="NAME|PATH", help="a name from --list, or a path to a search file")
    parser.add_argument("--list", action="store_true", help="list the searches and exit")
    parser.add_argument("--dry-run", action="store_true", help="show the space, its corners and its cost, and exit")
    parser.add_argument("--trials", type=positive, metavar="N", help="trials in all (a larger number extends a search)")
    add_proposals(parser)
    parser.add_argument(
        "--scheduler", choices=(*SCHEDULERS, "none"), help="what stops trials early; --set scheduler.KEY=VALUE sets it"
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="accept a changed space on a started search: wider ranges, more choices, keys newly varied or fixed",
    )
    parser.add_argument("--hours", type=float, metavar="H", help="stop this launch after H hours of wall time")
    parser.add_argument("--retry-failed", action="store_true", help="run trials that failed, or were rejected, again")
    parser.add_argument("--keep", type=natural, metavar="N", help="of how many trials the weights are kept")
    parser.add_argument(
        "--keep-states", type=natural, metavar="N", help="of how many of these `pixeltune continue` can train further"
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="R",
        help="train a trial that would be the best with R - 1 more seeds before it counts as the best",
    )
    parser.add_argument("--name", metavar="NAME", help="name of the results folder [the search's name]")
    parser.add_argument(
        "--warm-start",
        nargs="+",
        action="extend",
        default=[],
        metavar="RESULTS",
        help="folders of searches whose compatible trials the sampler learns from, and whose best are tried first",
    )
    parser.add_argument("--max-concurrent", type=positive, metavar="N", help="run at most N trials at a time")
    parser.add_argument("-y", "--yes", action="store_true", help="start a search of more than 30 days without asking")
    add_place(parser)
    add_galleries(parser)
    add_track(parser)
    add_notify(parser)
    add_settings(parser)
    add_storage(parser)


def search(options: argparse.Namespace) -> int:
    """Run, preview or list searches, as the options say."""
    if options.list:
        return _list()
    if options.search is None:
        raise ConfigError(f"--search must name a search: {', '.join(list_searches())} (or a path to a .py file)")
    search_path(options.search)  # an unknown name is refused before missing packages
    require_packages("a search", "optuna", "rich", *(() if options.dry_run else ("ray",)))
    require_location(options.storage)
    out = console()
    settings = settings_of(options)
    if options.scheduler is not None:
        settings["scheduler"] = None if options.scheduler == "none" else options.scheduler
    space = _space(options, settings)
    from pixeltune.results.identity import require_new_name

    name = options.name or search_path(options.search).stem
    require_new_name(name)
    if options.dry_run:
        from pixeltune.cli.dry_run import show_plan

        show_plan(out, space, name, options.warm_start)
        return EXIT_OK
    if options.cluster is not None:
        require_no_address_in_job(options)
        return submit(options, name, search_path(options.search))
    return _run(out, space, name, settings, options)


def _space(options: argparse.Namespace, settings: dict[str, Any]) -> SearchSpace:
    from pixeltune.space import load_search

    budget = {"budget.trials": options.trials, "budget.hours": options.hours}
    space = load_search(options.search)
    counts = {"keep": options.keep, "keep_states": options.keep_states, "repeats": options.repeats}
    space = replace(space, **{name: count for name, count in counts.items() if count is not None})
    if options.galleries is not None:
        space = replace(space, galleries=options.galleries)
    space = with_proposals(space, options)
    require_packages(f"the sampler {space.sampler}", *SAMPLERS[space.sampler].packages)
    return space.override(settings | {key: value for key, value in budget.items() if value is not None})


def _list() -> int:
    from pixeltune.published_sets import PUBLISHED_SETS

    summaries = {name: summarise_search(name) for name in list_searches()}
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        say(f"{name:<{width}}  {summary.title}")
    say("")
    for name, published in PUBLISHED_SETS.items():
        used = [summary.data for summary in summaries.values() if summary.data["name"] == name]
        if used:
            download = any(data.get("download", False) for data in used)
            say(f"{name} {published.state(used[0].get('path'), download=download)}")
    return EXIT_OK


def _run(out: Console, space: SearchSpace, name: str, settings: dict[str, Any], options: argparse.Namespace) -> int:
    require_trackers(options.track)
    with notified(addresses_of(options), name) as ending:
        return _run_until_end(out, space, name, settings, options, ending)


def _run_until_end(
    out: Console,
    space: SearchSpace,
    name: str,
    settings: dict[str, Any],
    options: argparse.Namespace,
    ending: Ending,
) -> int:
    from pixeltune.cli.search_summary import farewell_at_end, show_outcome
    from pixeltune.cluster.ray_backend import RayBackend
    from pixeltune.results.compaction import compact_many
    from pixeltune.results.store import SearchStore
    from pixeltune.search.callbacks import Callbacks, SearchCallback
    from pixeltune.search.progress import Progress
    from pixeltune.search.run import open_search, require_price, run_search
    from pixeltune.search.state import WITHOUT_RESULT
    from pixeltune.tune.ray_address import resolve_address

    place = resolve_address(options.address)
    out.print(str(place), highlight=False, soft_wrap=True)
    backend = RayBackend(place.address)
    if not SearchStore(options.storage, name).has_trials():
        require_price(space, backend.price(space.resources))
        if place.address is None and not options.yes:
            require_affordable(out, space)
    messages: list[str] = []
    with farewell_at_end(out, place.address), SearchStore(options.storage, name).lock():
        store, manifest = open_search(
            space,
            name,
            options.storage,
            overrides=settings,
            warm_start=options.warm_start,
            extend=options.extend,
            say=messages.append,
        )
        baseline = manifest.baseline_bits_per_dim
        out.print(f"[bold]{name}[/bold]: {space.title}", highlight=False)
        out.print(
            f"Order-0 baseline (one histogram per position): {baseline:.4f} bits/dim on validation", highlight=False
        )
        for line in messages:
            out.print(line, highlight=False, soft_wrap=True)
        shown = SearchCallback() if options.quiet else Progress(out)
        with tracked(options.track, store, shown.say) as tracking:
            outcome = run_search(
                space,
                store,
                manifest,
                backend=backend,
                callback=Callbacks(shown, tracking),
                retries=WITHOUT_RESULT if options.retry_failed else (),
                max_concurrent=options.max_concurrent,
            )
            ending.of_search(outcome)
            out.print(f"Ended: {outcome.reason}.", highlight=False)
            show_outcome(out, space, store, outcome, storage=options.storage)
        merged = "" if outcome.interrupted else compact_many(store)
        if merged:
            out.print(merged, highlight=False, soft_wrap=True)
    if outcome.interrupted:
        out.print(f"To go on: {command_again()}", highlight=False, soft_wrap=True)
        return EXIT_INTERRUPTED
    return EXIT_OK if outcome.has_result else EXIT_REFUTED


def require_affordable(out: Console, space: SearchSpace) -> None:
    """Ask before a search starts that would take more than 30 days on the CPUs of this machine.

    Raises:
        ConfigError: It is not confirmed, or there is no terminal to ask at.
    """
    if space.budget.trials * space.base.train.end < _WORTH_MEASURING:
        return
    import torch

    from pixeltune.data import resolve_outline
    from pixeltune.format import rough_duration
    from pixeltune.preflight.cost import MOST_HOURS, devices_text, measure

    if torch.cuda.is_available():  # to measure there would take memory from the trials until the search ends
        return
    with out.status("Measuring the speed of the base configuration …"):
        cost = measure(space, resolve_outline(space.base))
    if cost.hours <= MOST_HOURS:
        return
    out.print(f"Devices here: {devices_text(space)}", highlight=False, soft_wrap=True)
    out.print(f"Cost: {cost}.", highlight=False, soft_wrap=True)
    if sys.stdin.isatty() and out.is_terminal:
        answer = out.input("This search would take more than 30 days on this machine. Start it? [y/N] ", markup=False)
        if answer.strip().lower() in ("y", "yes"):
            return
    raise ConfigError(
        f"a search of more than 30 days must be confirmed, but {rough_duration(cost.hours)} are forecast on this "
        "machine; give --yes, run it on a cluster with --address or --cluster, or lower budget.trials or train.images "
        "with --set"
    )
