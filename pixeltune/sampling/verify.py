"""Whether a claimed likelihood is the length of a real code, from which the images come back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pixeltune.models import DensityModel
from pixeltune.sampling.codec import compress, decompress
from pixeltune.sampling.coded_file import unpack
from pixeltune.sampling.drawing import Advance, unheard

TOLERANCE = 1e-3
"""By how much of −log₂ p the bits may differ from it."""

STREAM_BITS = 64
"""What the end of a stream may cost."""


@dataclass(frozen=True)
class Verification:
    """A claimed −log₂ p of images beside the bits of their streams.

    header_bits: of the file beyond its streams, labels included. dims: sub-pixels of all images. is_identical: whether
    the images came back.
    """

    claimed_bits: float
    coded_bits: int
    header_bits: int
    streams: int
    dims: int
    is_identical: bool

    @property
    def difference(self) -> float:
        """By how much of the claim the code is longer."""
        return self.coded_bits / self.claimed_bits - 1

    @property
    def allowed_bits(self) -> float:
        """How far the code may be from the claim, either way."""
        return TOLERANCE * self.claimed_bits + STREAM_BITS * self.streams

    @property
    def is_within(self) -> bool:
        """Whether it is no farther."""
        return abs(self.coded_bits - self.claimed_bits) <= self.allowed_bits


def verify_bits(
    model: DensityModel,
    images_NCHW: np.ndarray,
    labels_N: np.ndarray | None = None,
    *,
    claimed_nats: float,
    batch_size: int = 100,
    method: str | None = None,
    advance: Advance = unheard,
) -> Verification:
    """Compress the images, decompress them, and compare.

    claimed_nats: −log p of all of them, by whole-image `log_prob`. method: see `compress`.
    Raises what `compress` and `decompress` raise.
    """
    content = compress(model, images_NCHW, labels_N, batch_size=batch_size, method=method, advance=advance)
    decoded = decompress(content, model, advance=advance)
    coded = unpack(content)
    return Verification(
        claimed_bits=float(claimed_nats) / math.log(2),
        coded_bits=coded.stream_bits,
        header_bits=coded.header_bits,
        streams=len(coded.streams),
        dims=images_NCHW.size,
        is_identical=np.array_equal(decoded.images_NCHW, images_NCHW),
    )
