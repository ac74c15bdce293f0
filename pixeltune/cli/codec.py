"""`pixeltune compress`, `decompress` and `verify-bits`: a trained model as a lossless coder."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import (
    EXIT_OK,
    EXIT_REFUTED,
    add_settings,
    add_storage,
    positive,
    require_writable,
    say,
    settings_of,
    writing,
)
from pixeltune.cli.model import TRIAL_HELP, load_on_best_device
from pixeltune.cli.progress_bar import network_calls
from pixeltune.errors import CodecError, DataError, PixeltuneError

if TYPE_CHECKING:
    import numpy as np

    from pixeltune.data import ImageSet
    from pixeltune.models import DensityModel
    from pixeltune.sampling.verify import Verification
    from pixeltune.training.weights import Trained

_LEAST_IMAGES = 100
"""Of `verify-bits`: with fewer, the ends of the streams hide the rest."""


def add_verbs(verbs: Any) -> None:
    """The three verbs."""
    parser = verbs.add_parser("compress", help="images as a file of about -log2 p bits, without loss")
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    source = parser.add_mutually_exclusive_group()
    _add_split(source)
    source.add_argument("--input", metavar="FILE.npy", help="these images, uint8 (N, C, H, W), coded without labels")
    parser.add_argument("--images", type=positive, metavar="N", help="the first N of them [all]")
    parser.add_argument("--out", required=True, metavar="FILE", help="compressed file to write")
    _add_numbers(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=compress)

    parser = verbs.add_parser("decompress", help="the images of a compressed file")
    parser.add_argument("file", metavar="FILE", help="what compress wrote")
    parser.add_argument("--trial", required=True, metavar="TRIAL", help=f"the model that wrote it: {TRIAL_HELP}")
    parser.add_argument("--out", required=True, metavar="FILE.npy", help="array to write, uint8 (N, C, H, W)")
    add_storage(parser)
    parser.set_defaults(verb=decompress)

    parser = verbs.add_parser("verify-bits", help="check a claimed bits/dim by really compressing and decompressing")
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    _add_split(parser)
    parser.add_argument("--images", type=_enough, default=_LEAST_IMAGES, metavar="N", help="the first N [100]")
    _add_numbers(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=verify_bits)


def _add_split(parser: Any) -> None:
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="images of the model's data [test]")


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=positive, default=100, metavar="B", help="images a network call [100]")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of the network [float32]")


def _enough(text: str) -> int:
    count = positive(text)
    if count < _LEAST_IMAGES:
        raise argparse.ArgumentTypeError(f"must be at least {_LEAST_IMAGES}, but got {count}")
    return count


def compress(options: argparse.Namespace) -> int:
    """Write a compressed file."""
    from pixeltune.cli.trial_ref import first_images
    from pixeltune.sampling.codec import compress as code
    from pixeltune.sampling.codec import require_codable
    from pixeltune.sampling.coded_file import unpack

    require_writable(options.out)
    trained = _load(options.trial, options.storage, options.dtype)
    require_codable(trained.model)
    images = _read_images(options.input) if options.input else _split_of(trained, options)
    images = first_images(images, options.images or len(images), options.input or options.split)
    pixels_NCHW, labels_N = images.pixels_NCHW, _labels(trained.model, images)
    with network_calls(trained.model, len(images), options.batch_size) as advance:
        content = code(trained.model, pixels_NCHW, labels_N, batch_size=options.batch_size, advance=advance)
    with writing(options.out):
        files.write_whole(options.out, content)
    coded = unpack(content)
    given = "" if coded.header.labels is None else "; the labels, which images are coded given, are in the rest"
    say(
        f"Wrote {options.out}: {len(images):,} images in {len(content):,} bytes, "
        f"{coded.stream_bits / pixels_NCHW.size:.5f} bits/dim of images and "
        f"{coded.header_bits / pixels_NCHW.size:.5f} of the rest{given}"
    )
    return EXIT_OK


def decompress(options: argparse.Namespace) -> int:
    """Write the images of a compressed file."""
    import numpy as np

    from pixeltune.sampling.codec import decompress as decode
    from pixeltune.sampling.coded_file import unpack

    if not options.out.lower().endswith(".npy"):
        raise DataError(f"--out must be a .npy file, but got {options.out!r}")
    require_writable(options.out)
    content = _read(options.file)
    header = unpack(content).header
    trained = _load(options.trial, options.storage, header.numbers.dtype)
    with network_calls(trained.model, header.count, header.batch_size) as advance:
        decoded = decode(content, trained.model, advance=advance)
    stream = io.BytesIO()
    np.save(stream, decoded.images_NCHW)
    with writing(options.out):
        files.write_whole(options.out, stream.getvalue())
    say(f"Wrote {options.out}: {header.count:,} images, checksum {header.images_checksum}")
    return EXIT_OK


def verify_bits(options: argparse.Namespace) -> int:
    """Compress and decompress images, and hold the bits against the exact evaluation of the same images."""
    from pixeltune.cli.trial_ref import first_images
    from pixeltune.sampling.codec import require_codable
    from pixeltune.sampling.determinism import fixed_numbers
    from pixeltune.sampling.verify import verify_bits as verify
    from pixeltune.training.evaluate import evaluate

    trained = _load(options.trial, options.storage, options.dtype)
    model = trained.model
    require_codable(model)
    images = first_images(_split_of(trained, options), options.images, options.split)
    with fixed_numbers(model):
        nats = float(evaluate(model, images, batch_size=options.batch_size).nats_N.sum())
    with network_calls(model, len(images), options.batch_size, walks=2) as advance:
        verification = verify(
            model,
            images.pixels_NCHW,
            _labels(model, images),
            claimed_nats=nats,
            batch_size=options.batch_size,
            advance=advance,
        )
    say(f"{options.split}: {len(images):,} {_verdict(verification)}")
    if verification.refutation is not None:
        say(f"Refuted: {verification.refutation}.")
        return EXIT_REFUTED
    return EXIT_OK


def _verdict(found: Verification) -> str:
    dims, allowed = found.dims, found.allowed_bits / found.claimed_bits
    return (
        f"images, identical after decoding: {'yes' if found.is_identical else 'NO'}; coded "
        f"{found.coded_bits / dims:.5f} bits/dim beside -log2 p {found.claimed_bits / dims:.5f}, "
        f"{found.difference:+.4%} (allowed ±{allowed:.4%}: 0.1% and 64 bits for each of {found.streams} streams); "
        f"header {found.header_bits / dims:.5f} bits/dim"
    )


def _load(trial: str, storage: str, dtype: str) -> Trained:
    import torch

    from pixeltune.cli.trial_ref import find_weights

    trained = load_on_best_device(find_weights(trial, storage))
    trained.model.to(getattr(torch, dtype))  # in place
    return trained


def _split_of(trained: Trained, options: argparse.Namespace) -> ImageSet:
    from pixeltune.cli.trial_ref import images_of

    return images_of(trained, options.split, settings_of(options))[1]


def _labels(model: DensityModel, images: ImageSet) -> np.ndarray | None:
    return None if model.conditioning is None else images.labels_N


def _read_images(location: str) -> ImageSet:
    import numpy as np

    from pixeltune.data import ImageSet

    try:
        pixels = np.load(io.BytesIO(_read(location)), allow_pickle=False)
    except (ValueError, EOFError, TypeError) as error:
        raise DataError(f"--input must be a .npy file of images, but {location} is not: {error}") from None
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 4 or pixels.dtype.kind not in "iu":
        found = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else "several arrays"
        raise DataError(f"--input must be a .npy file of integer levels (N, C, H, W), but {location} has {found}")
    return ImageSet(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))  # torch takes no other byte order


def _read(location: str) -> bytes:
    try:
        return files.read_whole(location)
    except FileNotFoundError:
        raise CodecError(f"a file must exist, but there is none at {location}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PixeltuneError(f"a file must be readable, but {location} is not ({reason})") from None
