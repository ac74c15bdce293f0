"""`pixeltune decompress`: the images of a compressed file."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING, Any

from pixeltune import files
from pixeltune.cli.common import EXIT_OK, TRIAL_HELP, add_storage, require_writable, say, writing
from pixeltune.cli.progress_bar import network_calls
from pixeltune.errors import DataError

if TYPE_CHECKING:
    pass
from pixeltune.cli.compress import load_as, read_file
from pixeltune.format import counted


def add_verb(verbs: Any) -> None:
    """Add `pixeltune decompress`."""
    parser = verbs.add_parser(
        "decompress",
        help="the images of a compressed file",
        examples=(
            "pixeltune decompress images.ptc --trial digits_quick --out images.npy",
            "pixeltune decompress images.ptc --trial model.safetensors --out images.npy",
        ),
    )
    parser.add_argument("file", metavar="FILE", help="what compress wrote")
    parser.add_argument("--trial", required=True, metavar="TRIAL", help=f"the model that wrote it: {TRIAL_HELP}")
    parser.add_argument("--out", required=True, metavar="FILE.npy", help="array to write, uint8 (N, C, H, W)")
    add_storage(parser)
    parser.set_defaults(verb=decompress)


def decompress(options: argparse.Namespace) -> int:
    """Write the images of a compressed file."""
    import numpy as np

    from pixeltune.sampling.codec import decompress as decode
    from pixeltune.sampling.coded_file import unpack

    if not options.out.lower().endswith(".npy"):
        raise DataError(f"--out must be a .npy file, but got {options.out!r}")
    require_writable(options.out)
    content = read_file(options.file)
    header = unpack(content).header
    trained = load_as(options.trial, options.storage, header.numbers.dtype)
    with network_calls(trained.model, header.count, header.batch_size) as advance:
        decoded = decode(content, trained.model, advance=advance)
    stream = io.BytesIO()
    np.save(stream, decoded.images_NCHW)
    with writing(options.out):
        files.write_whole(options.out, stream.getvalue())
    say(f"Wrote {options.out}: {counted(header.count, 'image')}, checksum {header.images_checksum}")
    return EXIT_OK
