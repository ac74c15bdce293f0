"""`pixeltune sample`: images that a trained model draws, as a PNG."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

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
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from pixeltune.sampling import Gallery
    from pixeltune.sampling.images import How
    from pixeltune.sampling.request import Advance

_METHODS = ("naive", "cached", "fixed_point")
BATCH_SIZE = 256


def add_verb(verbs: Any) -> None:
    """Add `pixeltune sample`."""
    parser = verbs.add_parser(
        "sample",
        help="draw images from a trained model into a PNG grid",
        examples=("pixeltune sample digits_quick -n 64 --temperature 0.9", "pixeltune sample digits_quick --gallery"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("-n", "--images", type=positive, default=64, metavar="N", help="images to draw [64]")
    shape.add_argument("--gallery", action="store_true", help="72 samples, and 12 images of --split completed 6 times")
    parser.add_argument("--label", type=_label, metavar="K", help="class to draw, of a conditional model [all in turn]")
    add_drawing(parser, "samples.png")
    parser.set_defaults(verb=sample)


def sample(options: argparse.Namespace) -> int:
    """Draw a grid or a gallery and write it."""
    from pixeltune.cli.trial_ref import images_of, load_on_best_device
    from pixeltune.sampling import GALLERY_SIDE, Gallery, gallery, labels_in_turn, upper_half, why_not_conditional
    from pixeltune.sampling import sample as draw
    from pixeltune.search.trial_reference import find_weights

    require_png(options.out)
    if options.gallery and options.label is not None:
        raise ConfigError("--label draws one class, but a gallery has all of them in turn; leave one of them out")
    if not options.gallery and options.settings:
        raise ConfigError("--set says where the images of a --gallery are, but no --gallery is given; leave it out")
    trained = load_on_best_device(find_weights(options.trial, options.storage))
    model = trained.model
    if options.gallery:
        examples = images_of(trained, options.split, settings_of(options))[1]
        walks = 1 if why_not_conditional(model, upper_half(model)) else 2
        with network_calls(model, GALLERY_SIDE**2, walks=walks, tells_time=tells_time(options)) as advance:
            picture = gallery(model, examples, title=title_of(options), **how_to_draw(options, advance))
        return write_picture(picture, options.out)
    count, label = options.images, options.label
    labels = labels_in_turn(model, count) if label is None else [label] * count
    with network_calls(model, count, BATCH_SIZE, tells_time=tells_time(options)) as advance:
        images = draw(model, count, labels=labels, **how_to_draw(options, advance))
    return write_picture(Gallery(images, model.form.levels), options.out)


def add_drawing(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options of verbs that draw images. out: the file that is written by default."""
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="whose images are completed [test]")
    parser.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the images [0]")
    parser.add_argument(
        "--temperature", type=_temperature, default=1.0, metavar="T", help="draw each sub-pixel from p^(1/T) [1]"
    )
    parser.add_argument("--method", choices=_METHODS, default="cached", help="how; all draw the same images [cached]")
    parser.add_argument("--out", default=out, metavar="FILE", help=f"PNG to write [{out}]")
    add_settings(parser)
    add_storage(parser)


def title_of(options: argparse.Namespace) -> str:
    """Return the title of a picture."""
    return f"{options.trial}, {options.split} images, seed {options.seed}"


def tells_time(options: argparse.Namespace) -> bool:
    """Return whether the time can be estimated; fixed-point sampling takes an unknown number of calls."""
    return bool(options.method != "fixed_point")


def how_to_draw(options: argparse.Namespace, advance: Advance) -> How:
    """Return the keyword arguments of the sampling functions."""
    return {
        "seed": options.seed,
        "temperature": options.temperature,
        "method": options.method,
        "batch_size": BATCH_SIZE,
        "advance": advance,
    }


def write_picture(picture: Gallery, location: str) -> int:
    """Write a picture, print its path, and return the exit code."""
    with writing(location):
        picture.save(location)
    say(f"Wrote {location}{': ' if picture.caption else ''}{picture.caption}")
    return EXIT_OK


def require_png(location: str) -> None:
    """Refuse a name that is not a PNG's, and a path that cannot be written."""
    if not location.lower().endswith(".png"):
        raise ConfigError(f"--out must be a .png file, but got {location!r}")
    require_writable(location)


def _label(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a class, a whole number from 0 on, but got {text[:40]!r}")
    return int(text)


def _seed(text: str) -> int:
    """Return a seed that torch accepts."""
    if not text.isdecimal() or len(text) > len(str(2**63)) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63-1, but got {text[:40]!r}")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, but got {text[:40]!r}")
    return value
