"""`pixeltune complete`: images that a trained model completes from a given part, as a PNG."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pixeltune.cli.common import TRIAL_HELP, positive, settings_of
from pixeltune.cli.progress_bar import network_calls
from pixeltune.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pixeltune.models import DensityModel
from pixeltune.cli.sample import BATCH_SIZE, add_drawing, how_to_draw, require_png, tells_time, title_of, write_picture


def add_verb(verbs: Any) -> None:
    """Add `pixeltune complete`."""
    parser = verbs.add_parser(
        "complete",
        help="draw the rest of partly given images",
        examples=("pixeltune complete digits_quick --rows 4", "pixeltune complete digits_quick --columns 4 --clamp"),
    )
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("-n", "--images", type=positive, default=12, metavar="N", help="the first N of them [12]")
    parser.add_argument("--draws", type=positive, default=6, metavar="D", help="completions of each image [6]")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--rows", type=positive, metavar="R", help="the upper R rows are given [the upper half]")
    part.add_argument("--columns", type=positive, metavar="C", help="the left C columns are given; needs --clamp")
    parser.add_argument(
        "--clamp",
        action="store_true",
        help="put any given part over what is drawn, which is not a conditional sample, and say so in the picture",
    )
    add_drawing(parser, "completions.png")
    parser.set_defaults(verb=complete)


def complete(options: argparse.Namespace) -> int:
    """Draw and write completions."""
    from pixeltune.cli.trial_ref import first_images, images_of, load_on_best_device
    from pixeltune.sampling import completions, require_conditional
    from pixeltune.search.trial_reference import find_weights

    require_png(options.out)
    trained = load_on_best_device(find_weights(options.trial, options.storage))
    model, known_HW = trained.model, _known_part(options, trained.model)
    if not options.clamp:
        require_conditional(model, known_HW)  # before the data is looked for
    images = images_of(trained, options.split, settings_of(options))[1]
    examples, count = first_images(images, options.images, options.split), options.images * options.draws
    with network_calls(model, count, BATCH_SIZE, tells_time=tells_time(options)) as advance:
        how, chosen = how_to_draw(options, advance), {"draws": options.draws, "clamp": options.clamp}
        picture = completions(model, examples, known_HW, title=title_of(options), **chosen, **how)
    return write_picture(picture, options.out)


def _known_part(options: argparse.Namespace, model: DensityModel) -> Tensor:
    """Return the part that the options name, (H, W) bool."""
    import torch

    from pixeltune.sampling import upper_half

    form = model.form
    if options.rows is None and options.columns is None:
        return upper_half(model)
    known_HW = torch.zeros(form.height, form.width, dtype=torch.bool)
    for name, given, size in (("--rows", options.rows, form.height), ("--columns", options.columns, form.width)):
        if given is not None and given >= size:
            raise ConfigError(f"{name} must leave something to draw of {size}, but got {given}")
    known_HW[: options.rows, : options.columns] = True
    return known_HW
