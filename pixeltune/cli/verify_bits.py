"""`pixeltune verify-bits`: a claimed bits/dim checked by compressing and decompressing images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import EXIT_OK, EXIT_REFUTED, TRIAL_HELP, add_settings, add_storage, positive, say
from pixeltune.cli.progress_bar import network_calls

if TYPE_CHECKING:
    from pixeltune.sampling.code_check import Verification
from pixeltune.cli.compress import add_number_format, add_split, labels_for, load_as, split_of
from pixeltune.format import counted

_LEAST_IMAGES = 100
"""The fewest images of `verify-bits`: with fewer, the overhead of the streams dominates."""


def add_verb(verbs: Any) -> None:
    """Add `pixeltune verify-bits`."""
    parser = verbs.add_parser(
        "verify-bits",
        help="check a claimed bits/dim by really compressing and decompressing",
        examples=(
            "pixeltune verify-bits digits_quick",
            "pixeltune verify-bits digits_quick/7 --split valid --images 200",
        ),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    add_split(parser)
    parser.add_argument("--images", type=_enough, default=_LEAST_IMAGES, metavar="N", help="the first N [100]")
    add_number_format(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=verify_bits)


def verify_bits(options: argparse.Namespace) -> int:
    """Compress and decompress images, and compare the bits with the exact evaluation of the same images."""
    from pixeltune.cli.trial_ref import first_images
    from pixeltune.sampling.code_check import verify_bits as verify
    from pixeltune.sampling.codec import require_codable
    from pixeltune.sampling.determinism import fixed_numbers
    from pixeltune.training.evaluation import evaluate

    trained = load_as(options.trial, options.storage, options.dtype)
    model = trained.model
    require_codable(model)
    images = first_images(split_of(trained, options), options.images, options.split)
    with fixed_numbers(model):
        nats = float(evaluate(model, images, batch_size=options.batch_size).nats_N.sum())
    with network_calls(model, len(images), options.batch_size, walks=2) as advance:
        verification = verify(
            model,
            images.pixels_NCHW,
            labels_for(model, images),
            claimed_nats=nats,
            batch_size=options.batch_size,
            advance=advance,
        )
    say(f"{options.split}: {counted(len(images), 'image')}, {_verdict(verification)}")
    if verification.refutation is not None:
        say(f"Refuted: {verification.refutation}.")
        return EXIT_REFUTED
    return EXIT_OK


def _verdict(found: Verification) -> str:
    dims, allowed = found.dims, found.allowed_bits / found.claimed_bits
    return (
        f"identical after decoding: {'yes' if found.is_identical else 'NO'}; coded "
        f"{found.coded_bits / dims:.5f} bits/dim compared with -log2 p {found.claimed_bits / dims:.5f}, "
        f"{found.difference:+.4%} (allowed ±{allowed:.4%}: 0.1% and 64 bits for each of "
        f"{counted(found.streams, 'stream')}); "
        f"header {found.header_bits / dims:.5f} bits/dim"
    )


def _enough(text: str) -> int:
    count = positive(text)
    if count < _LEAST_IMAGES:
        raise argparse.ArgumentTypeError(f"must be at least {_LEAST_IMAGES}, but got {count}")
    return count
