"""`pixeltune evaluate` and `audit`: one trained or configured model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, add_settings, add_storage, positive, say, settings_of

if TYPE_CHECKING:
    from pixeltune.training.weights import Trained

TRIAL_HELP = "SEARCH (its best trial), SEARCH/TRIAL (a unique beginning is enough), or a .safetensors file"


def add_verbs(verbs: Any) -> None:
    """The two verbs."""
    parser = verbs.add_parser("evaluate", help="exact bits/dim and nats of a trained model")
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images per network call")
    parser.add_argument("--importance", type=positive, metavar="K", help="importance-weighted bound, K draws an image")
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=evaluate)

    parser = verbs.add_parser("audit", help="check causality, receptive field and normalisation of a configuration")
    parser.add_argument("--config", required=True, metavar="FILE.toml")
    add_settings(parser)
    parser.set_defaults(verb=audit)


def evaluate(options: argparse.Namespace) -> int:
    """Print the exact number of one split, of weights that do not look ahead."""
    from pixeltune.audit import NUM_CUTS, check_trained
    from pixeltune.cli.trial_ref import find_weights, images_of
    from pixeltune.training.evaluate import evaluate as measure

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
        f"{result.nats:.4f} nats per image{bound}, {len(images):,} images of {data.identity.name} "
        f"({data.identity.version}, checksum {data.identity.checksum})"
    )
    if options.split == "test":
        say("Quote this number only for a model that was not chosen by it.")
    return EXIT_OK


def _kind_of_bound(importance: int | None) -> str:
    return "a bound, the ELBO" if importance is None else f"a bound, importance-weighted with {importance} draws"


def audit(options: argparse.Namespace) -> int:
    """Audit a configuration, untrained: its structure is what leaks or does not."""
    from pixeltune.audit import audit as examine
    from pixeltune.config import TrialConfig
    from pixeltune.models import build_model

    config = TrialConfig.from_toml(options.config).override(settings_of(options))
    report = examine(build_model(config))
    say(
        f"Passed in {report.seconds:.2f} s: causal by position and colour, some past pixel matters everywhere, "
        f"receptive field {report.receptive_rows} rows × {report.receptive_cols} columns with "
        f"{report.blind_spot} past pixels unseen inside, probabilities sum to one within {report.max_mass_error:.1e}."
    )
    return EXIT_OK


def load_on_best_device(weights: str) -> Trained:
    """A trained model in eval mode, on the GPU where there is one, and what it was trained with."""
    from pixeltune.training.weights import load_with_config
    from pixeltune.training.workers import best_device

    trained = load_with_config(weights)
    trained.model.to(best_device())  # in place
    return trained
