"""`pixeltune evaluate`: exact bits/dim and nats of a trained model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, TRIAL_HELP, add_settings, add_storage, positive, say, settings_of
from pixeltune.format import counted

if TYPE_CHECKING:
    pass


def add_verb(verbs: Any) -> None:
    """Add `pixeltune evaluate`."""
    parser = verbs.add_parser(
        "evaluate",
        help="exact bits/dim and nats of a trained model",
        examples=("pixeltune evaluate digits_quick", "pixeltune evaluate digits_quick/7 --split test"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images per network call")
    parser.add_argument("--importance", type=positive, metavar="K", help="importance-weighted bound, K draws an image")
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Print the exact bits/dim and nats of one split; refuse weights that look ahead."""
    from pixeltune.audit import NUM_CUTS, check_trained
    from pixeltune.cli.trial_ref import images_of, load_on_best_device
    from pixeltune.search.trial_reference import find_weights
    from pixeltune.training.evaluation import evaluate as measure

    trained = load_on_best_device(find_weights(options.trial, options.storage))
    model, settings = trained.model, settings_of(options)
    data, images = images_of(trained, options.split, settings)
    config = trained.config.override(settings)
    batch_size = options.batch_size or config.train.eval_batch_size
    result = measure(model, images, batch_size=batch_size, importance=options.importance)
    check_trained(model, batch_size=batch_size, num_cuts=max(NUM_CUTS, len(images) // 20))
    bound = f" ({_kind_of_bound(options.importance)})" if model.is_bound else ""
    say(
        f"{options.split}: {result.bits_per_dim:.5f} bits/dim ± {result.standard_error:.5f}, "
        f"{result.nats:.4f} nats per image{bound}, {counted(len(images), 'image')} of {data.identity.name} "
        f"({data.identity.version}, checksum {data.identity.checksum})"
    )
    if options.split == "test":
        say("Quote this number only for a model that was not chosen by it.")
    return EXIT_OK


def _kind_of_bound(importance: int | None) -> str:
    return (
        "a bound, the ELBO"
        if importance is None
        else f"a bound, importance-weighted with {counted(importance, 'draw')}"
    )
