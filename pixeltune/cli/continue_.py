"""`pixeltune continue`: train trials of a search further, from their kept weights and optimiser state."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUTED, add_storage, positive, say, say_progress
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from pixeltune.search.continuation import Continuation


def add_verb(verbs: Any) -> None:
    """Add `pixeltune continue`."""
    parser = verbs.add_parser(
        "continue",
        help="train trials further, if their search kept their state (keep_states)",
        examples=(
            "pixeltune continue cifar_gated/7 --images 2000000",
            "pixeltune continue cifar_gated --top 3 --images 2000000",
        ),
    )
    parser.add_argument("trial", metavar="TRIAL", help="SEARCH/TRIAL (a unique beginning is enough), or SEARCH")
    parser.add_argument("--images", type=positive, required=True, metavar="N", help="training images in all")
    parser.add_argument("--top", type=positive, metavar="K", help="continue the K best trials with kept state")
    add_storage(parser)
    parser.set_defaults(verb=continue_)


def continue_(options: argparse.Namespace) -> int:
    """Train one trial after another in this process; print a table of losses per report for each."""
    from pixeltune.data import load_data
    from pixeltune.results.store import SearchStore
    from pixeltune.search.continuation import continuation_of, continuations_of_best
    from pixeltune.search.run import require_same_code, require_same_data
    from pixeltune.search.trial_reference import find_best, find_trial

    search, _, trial = options.trial.partition("/")
    if bool(trial) == bool(options.top):
        given = f"{options.trial} {'with' if options.top else 'without'} --top"
        raise ConfigError(f"continue must have SEARCH/TRIAL, or SEARCH with --top K, but got {given}")
    store = SearchStore(options.storage, search)
    store.manifest()  # raises if there is no such search, and makes no folder
    with store.lock():
        if options.top:
            continuations = continuations_of_best(find_best(search, options.storage), options.images, options.top)
        else:
            continuations = [continuation_of(find_trial(options.trial, options.storage), options.images)]
        require_same_code(store)
        data = continuations[0].config.data
        require_same_data(store, data, load_data(data).identity.checksum)
        codes = []
        for each in continuations:
            codes.append(_train(each))
            if codes[-1] == EXIT_INTERRUPTED:
                break
    return max(codes)


def _train(continuation: Continuation) -> int:
    import torch

    from pixeltune.cli.progress_bar import training_progress
    from pixeltune.cli.train import REPORT_HEADER, report_line, stop_on_signal
    from pixeltune.results.schema import Status
    from pixeltune.results.stop_requests import StopRequestReader
    from pixeltune.space import Resources
    from pixeltune.training.workers import best_device

    found, images = continuation.found, continuation.config.train.images
    say(f"{found.name}: from attempt {found.row['attempt']}, {continuation.images_before:,} images, to {images:,}")
    say_progress(REPORT_HEADER)
    resources = Resources(1, cpus=torch.get_num_threads(), gpus=1.0 if best_device(0).type == "cuda" else 0.0)
    end: tuple[str, str | None] = (Status.INTERRUPTED, None)
    with (
        stop_on_signal(1, StopRequestReader(found.store.folder)) as is_stopping,
        training_progress(images) as show,
    ):
        for message in continuation.run(resources, is_stopping):
            if "progress" in message:
                show(message["progress"])
            if "report" in message:
                say_progress(report_line(message["report"]))
            if "end" in message:
                end = message["end"], message["reason"]
    if end[0] == Status.FINISHED:
        row = next(row for row in found.store.trials() if row["trial"] == found.row["trial"])
        before, after = found.row["valid_bits_per_dim"], row["valid_bits_per_dim"]
        say(f"{found.name}: {before:.5f} bits/dim, now {after:.5f} after {images:,} images (attempt {row['attempt']})")
        return EXIT_OK
    if end[0] == Status.INTERRUPTED:
        say("Stopped; the same command resumes from here.")
        return EXIT_INTERRUPTED
    say(f"Ended as {end[0]}: {end[1]}. The results of {found.name} are as before.")
    return EXIT_REFUTED
