"""The output at the end of a search: leaderboard, published numbers, where the results are, pictures of the best."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from pixeltune import files
from pixeltune.cli.leaderboard import front_table, repeat_notes, search_table
from pixeltune.cli.tables import print_table
from pixeltune.cluster.capacity import cluster_file, cost_notice
from pixeltune.errors import DataError, PixeltuneError
from pixeltune.format import counted, enumerated
from pixeltune.published.nearest import comparison_lines
from pixeltune.results.ranking import RANKED, counted_statuses, leaderboard, pareto_front
from pixeltune.results.repeats import merge_repeats
from pixeltune.results.search_status import count_failures
from pixeltune.results.storage import COMMAND, storage_words
from pixeltune.results.store import SearchStore
from pixeltune.search.run import Outcome
from pixeltune.search.state import SearchState
from pixeltune.search.trial import weights_file
from pixeltune.space import SearchSpace

_TOP = 10
_MOST_REASONS = 3
_MOST_SAMPLING_SECONDS = 60.0


@contextmanager
def farewell_at_end(out: Console, address: str | None) -> Iterator[None]:
    """Print, at any end of a launch on a cluster, what continues to cost money and the command that ends it.

    For a job that `--cluster` submitted, the command that follows it prints this, with its own path of the file.
    """
    try:
        yield
    finally:
        for line in cost_notice(None if address is None or COMMAND in os.environ else cluster_file()):
            out.print(line, highlight=False, soft_wrap=True)


def show_outcome(out: Console, space: SearchSpace, store: SearchStore, outcome: Outcome, *, storage: str) -> None:
    """Print the outcome, with commands that name `storage`.

    Pictures come last, because they may take a while; a search that was stopped by hand ends without them.
    """
    state = outcome.state
    rows = list(state.ended.values())
    waiting = len(state.pending())
    counts = [counted_statuses(rows), f"{waiting} interrupted" if waiting else ""]
    out.print(f"Trials: {', '.join(filter(None, counts)) or 'none'}.", highlight=False)
    show_failures(out, state)
    keys = list(state.history.keys)
    places = leaderboard(rows, space.objectives[0], _TOP, keys, space.constraints)
    if not places:
        return
    print_table(out, *search_table(places, keys, space.objectives, space.constraints))
    _show_front(out, space, rows, keys)
    within = [place["trial"] for place in places if place["rank"] is not None]
    by_trial = {row["trial"]: row for row in rows}
    for place in places:
        if place["bits_verified"] is False:
            why = by_trial[place["trial"]]["bits_unverified_reason"]
            out.print(f"Trial {place['trial']} is not confirmed: {why}.", highlight=False, soft_wrap=True)
    for line in repeat_notes(places, space.objectives):
        out.print(line, highlight=False, soft_wrap=True)
    if within:
        for line in comparison_lines(next(row for row in merge_repeats(rows) if row["trial"] == within[0])):
            out.print(line, highlight=False, soft_wrap=True)
    else:
        out.print("No trial keeps to the constraints, with bits that a code confirms.", highlight=False)
    out.print(
        f'Rows: {store.trials_folder}    pd.read_parquet("{store.trials_folder}")', highlight=False, soft_wrap=True
    )
    words = f"{store.search}{storage_words(storage)}"
    final = f"    Test set: pixeltune final {words}" if any(row["num_test"] != 0 for row in rows) else ""
    out.print(f"Report: pixeltune report {words}{final}", highlight=False, soft_wrap=True)
    if not outcome.interrupted:
        remove_galleries(store, set(by_trial) - set(within[: space.keep]))
        _show_galleries(out, store, within[: space.keep], storage_words(storage))


def show_failures(out: Console, state: SearchState) -> None:
    """Print why no trial has a result, and what to do; nothing if one has."""
    rows = list(state.ended.values())
    if not rows or any(row["status"] in RANKED for row in rows):
        return
    for reason, count in list(count_failures(rows).items())[:_MOST_REASONS]:
        out.print(f"{count} × {reason}", highlight=False, soft_wrap=True)
    again = "" if state.ends_by_failure(rows) or state.space.is_final else " with --retry-failed"
    out.print(
        f"No trial has a result. Mend the cause, and give the same command{again}: it runs these trials again.",
        highlight=False,
        soft_wrap=True,
    )


def _show_front(out: Console, space: SearchSpace, rows: list[dict[str, Any]], keys: list[str]) -> None:
    """Print, for several objectives, the finished trials that no other trial beats in all of them."""
    if len(space.objectives) == 1:
        return
    best = pareto_front(rows, space.objectives, space.constraints)
    what = f"{counted(len(best), 'finished trial')} that no other beats"
    out.print(f"Front of {enumerated(space.objectives)}: {what}.", highlight=False)
    if best:
        print_table(out, *front_table(best, keys, space.objectives))


def _show_galleries(out: Console, store: SearchStore, trials: list[str], where: str) -> None:
    """Draw a gallery of each of the best trials with kept weights, unless it exists or takes long."""
    shown, left, slow = [], _MOST_SAMPLING_SECONDS, ""
    for trial in trials:
        location, weights = store.gallery(trial), weights_file(store.checkpoint(trial))
        if not files.exists(location):
            if not files.exists(weights):
                continue
            started = time.monotonic()
            try:
                seconds = _draw_gallery(weights, location, f"{store.search}{_title_end(trial)}", left)
            except PixeltuneError as error:  # the search is over, and its numbers remain valid
                out.print(f"No samples of trial {trial}: {error}", highlight=False, soft_wrap=True)
                continue
            if seconds is not None:
                slow = (
                    f"Samples of trial {trial}: about {math.ceil(seconds / 60)} min on this machine; "
                    f"pixeltune sample {store.search}/{trial}{where} --gallery --split valid draws them"
                )
                break
            left -= time.monotonic() - started
        shown.append(f"{trial}.png")
    for line in [f"Samples of the best trials in {store.samples_folder}: {', '.join(shown)}"] * bool(shown) + [
        slow
    ] * bool(slow):
        out.print(line, highlight=False, soft_wrap=True)


def remove_galleries(store: SearchStore, trials: Iterable[str]) -> None:
    """Remove the galleries that the end of a search drew of these trials, such as those that are no longer the best.

    A picture that was made in another way, or that cannot be read, is kept: its description begins differently. An
    error of the disk keeps it too.
    """
    pictures = set(files.list_names(store.samples_folder, ".png"))
    for trial in sorted(trials):
        location = store.gallery(trial)
        if f"{trial}.png" in pictures and _description_of(location).partition(": ")[0].endswith(_title_end(trial)):
            with suppress(OSError):
                files.remove(location)


def _title_end(trial: str) -> str:
    """Return the end of the title of a gallery that is drawn at the end of a search; the search's name is before it."""
    return f"/{trial}, validation images, seed 0"


def _description_of(location: str) -> str:
    """Return the description in a PNG; "" without one."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(files.read_whole(location))) as picture:
            return str(picture.info.get("Description", ""))
    except (OSError, ValueError, SyntaxError):  # Pillow's errors of a file that is damaged
        return ""


def _draw_gallery(weights: str, location: str, title: str, most_seconds: float) -> float | None:
    """Draw a gallery and return None; if it would take too long, return the seconds instead."""
    from pixeltune.cli.trial_ref import images_of, load_on_best_device
    from pixeltune.sampling import GALLERY_SIDE, forecast, gallery

    trained = load_on_best_device(weights)
    seconds = 2 * forecast(trained.model, GALLERY_SIDE**2 // 2)
    if seconds > most_seconds:
        return seconds
    try:
        examples = images_of(trained, "valid", {})[1]
    except DataError:  # the images are where the trials ran
        examples = None
    gallery(trained.model, examples, title=title).save(location)
    return None
