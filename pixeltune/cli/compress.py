"""`pixeltune compress`: images as a file of about -log2 p bits, by a trained model as a lossless coder."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import (
    EXIT_OK,
    TRIAL_HELP,
    add_settings,
    add_storage,
    positive,
    require_writable,
    say,
    settings_of,
    writing,
)
from pixeltune.cli.progress_bar import network_calls
from pixeltune.errors import CodecError, DataError, PixeltuneError
from pixeltune.format import counted

if TYPE_CHECKING:
    import numpy as np

    from pixeltune.data import ImageSet
    from pixeltune.models import DensityModel
    from pixeltune.training.weights import Trained


def add_verb(verbs: Any) -> None:
    """Add `pixeltune compress`."""
    parser = verbs.add_parser(
        "compress",
        help="images as a file of about -log2 p bits, without loss",
        examples=(
            "pixeltune compress digits_quick --images 100 --out images.ptc",
            "pixeltune compress model.safetensors --input images.npy --out images.ptc",
        ),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    source = parser.add_mutually_exclusive_group()
    add_split(source)
    source.add_argument("--input", metavar="FILE.npy", help="these images, uint8 (N, C, H, W), coded without labels")
    parser.add_argument("--images", type=positive, metavar="N", help="the first N of them [all]")
    parser.add_argument("--out", required=True, metavar="FILE", help="compressed file to write")
    add_number_format(parser)
    add_settings(parser)
    add_storage(parser)
    parser.set_defaults(verb=compress)


def compress(options: argparse.Namespace) -> int:
    """Write a compressed file."""
    from pixeltune.cli.trial_ref import first_images
    from pixeltune.sampling.codec import compress as code
    from pixeltune.sampling.codec import require_codable
    from pixeltune.sampling.coded_file import unpack

    require_writable(options.out)
    trained = load_as(options.trial, options.storage, options.dtype)
    require_codable(trained.model)
    images = _read_images(options.input) if options.input else split_of(trained, options)
    images = first_images(images, options.images or len(images), options.input or options.split)
    pixels_NCHW, labels_N = images.pixels_NCHW, labels_for(trained.model, images)
    with network_calls(trained.model, len(images), options.batch_size) as advance:
        content = code(trained.model, pixels_NCHW, labels_N, batch_size=options.batch_size, advance=advance)
    with writing(options.out):
        files.write_whole(options.out, content)
    coded = unpack(content)
    given = "" if coded.header.labels is None else "; the labels, which images are coded given, are in the rest"
    say(
        f"Wrote {options.out}: {counted(len(images), 'image')} in {len(content):,} bytes, "
        f"{coded.stream_bits / pixels_NCHW.size:.5f} bits/dim of images and "
        f"{coded.header_bits / pixels_NCHW.size:.5f} of the rest{given}"
    )
    return EXIT_OK


def _read_images(location: str) -> ImageSet:
    import numpy as np

    from pixeltune.data import ImageSet

    try:
        pixels = np.load(io.BytesIO(read_file(location)), allow_pickle=False)
    except (ValueError, EOFError, TypeError) as error:
        raise DataError(f"--input must be a .npy file of images, but {location} is not: {error}") from None
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 4 or pixels.dtype.kind not in "iu":
        found = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else "several arrays"
        raise DataError(f"--input must be a .npy file of integer levels (N, C, H, W), but {location} has {found}")
    return ImageSet(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))  # torch takes no other byte order


def add_split(parser: Any) -> None:
    """Add the option for the split of the model's data."""
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="images of the model's data [test]")


def add_number_format(parser: argparse.ArgumentParser) -> None:
    """Add the options on which the coded numbers depend."""
    parser.add_argument("--batch-size", type=positive, default=100, metavar="B", help="images a network call [100]")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of the network [float32]")


def load_as(trial: str, storage: str, dtype: str) -> Trained:
    """Return a trained model whose network computes in `dtype`, on the GPU if there is one."""
    import torch

    from pixeltune.cli.trial_ref import load_on_best_device
    from pixeltune.search.trial_reference import find_weights

    trained = load_on_best_device(find_weights(trial, storage))
    trained.model.to(getattr(torch, dtype))  # in place
    return trained


def split_of(trained: Trained, options: argparse.Namespace) -> ImageSet:
    """Return the images of the split that the options name."""
    from pixeltune.cli.trial_ref import images_of

    return images_of(trained, options.split, settings_of(options))[1]


def labels_for(model: DensityModel, images: ImageSet) -> np.ndarray | None:
    """Return the labels for a conditional model; None for other models."""
    return None if model.conditioning is None else images.labels_N


def read_file(location: str) -> bytes:
    """Return the content of a user's file; a one-line error if it is missing or cannot be read."""
    try:
        return files.read_whole(location)
    except FileNotFoundError:
        raise CodecError(f"a file must exist, but there is none at {location}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PixeltuneError(f"a file must be readable, but {location} is not ({reason})") from None
