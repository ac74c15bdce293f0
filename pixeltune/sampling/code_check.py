"""Whether a claimed likelihood is the length of a real code, from which the images come back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from pixeltune.data import ImageSet
from pixeltune.errors import CodecError, MissingPackageError
from pixeltune.models import DensityModel
from pixeltune.own_code import reason_to_skip
from pixeltune.sampling.codec import compress, decompress, require_codable
from pixeltune.sampling.coded_file import unpack
from pixeltune.sampling.request import Advance, no_progress

TOLERANCE = 1e-3
"""By how much of −log₂ p the bits may differ from it."""

STREAM_BITS = 64
"""What the end of a stream may cost."""

_BITS_TO_CHECK = 2**15
_FEWEST, _MOST = 8, 512
"""Images whose claim is checked, in one batch: so many that the end of their stream is 0.2% of their bits, or less."""

_CALLS_TO_JUDGE = 8
"""Network calls after which the time of all of them is foreseen."""


@dataclass(frozen=True)
class Verification:
    """A claimed −log₂ p of images compared with the bits of their streams.

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
        """Return by how much of the claim the code is longer."""
        return self.coded_bits / self.claimed_bits - 1

    @property
    def allowed_bits(self) -> float:
        """Return how far the code may be from the claim, either way."""
        return TOLERANCE * self.claimed_bits + STREAM_BITS * self.streams

    @property
    def is_within(self) -> bool:
        """Return whether it is no farther."""
        return abs(self.coded_bits - self.claimed_bits) <= self.allowed_bits

    @property
    def refutation(self) -> str | None:
        """Return why the claim is refuted, in one sentence; None where it is confirmed."""
        if not self.is_identical:
            return "the decoded images are not those that were coded"
        if self.is_within:
            return None
        if self.coded_bits > self.claimed_bits:
            return (
                "the code is longer than -log2 p. The model claims more than it can tell before it has seen a pixel: "
                "it looks ahead, or its log_prob is not that of its probabilities"
            )
        return "the code is shorter than -log2 p. The model's log_prob is not that of its probabilities"


@dataclass(frozen=True)
class BitsCheck:
    """The result of an attempt to confirm claimed bits.

    is_confirmed: None where nothing was checked. images: how many were coded. why_not: why it is not confirmed, or
    was not checked.
    """

    is_confirmed: bool | None
    images: int = 0
    why_not: str | None = None


def check_claim(model: DensityModel, images: ImageSet, nats_N: np.ndarray, *, seconds: float) -> BitsCheck:
    """Code the first images and compare with what was claimed of them, within about so many seconds.

    Args:
        model: The model that the claim is about.
        images: What was evaluated.
        nats_N: −log p of each image, as it was claimed.
        seconds: The check is given up after them, or where more are foreseen.

    Returns:
        Whether the claim is confirmed, and why not; nothing is confirmed or refuted where there was no time, memory or
        coder.
    """
    try:
        require_codable(model)
    except CodecError as error:
        return BitsCheck(None, why_not=str(error))
    except MissingPackageError as error:  # results keep this, so without the command that installs it here
        return BitsCheck(None, why_not=error.missing)
    count = _count_to_check(nats_N)
    try:
        found = verify_bits(
            model,
            np.asarray(images.pixels_NCHW[:count]),
            None if model.conditioning is None or images.labels_N is None else np.asarray(images.labels_N[:count]),
            claimed_nats=math.fsum(nats_N[:count]),
            batch_size=count,
            advance=_Deadline(seconds, calls=2 * (int(model.order().max()) + 1)),
        )
    except _TooSlowError:
        return BitsCheck(None, why_not=f"coding {count} images would take longer than {seconds:.0f} s here")
    except CodecError as error:
        return BitsCheck(False, count, str(error))
    except Exception as error:
        return BitsCheck(None, why_not=f"coding failed: {reason_to_skip(error)}")
    if found.refutation is None:
        return BitsCheck(True, count)
    dims = found.dims
    return BitsCheck(
        False,
        count,
        f"{count} images take {found.coded_bits / dims:.5f} bits/dim where {found.claimed_bits / dims:.5f} are "
        f"claimed: {found.refutation}",
    )


def _count_to_check(nats_N: np.ndarray) -> int:
    """Return how many images make enough bits; a claim of nothing asks for the most."""
    bits = max(1.0, math.fsum(nats_N) / len(nats_N) / math.log(2))
    return min(len(nats_N), max(_FEWEST, min(_MOST, math.ceil(_BITS_TO_CHECK / bits))))


class _TooSlowError(Exception):
    """More time than is given."""


class _Deadline:
    """Counts network calls, and ends the walk where they would take longer than `seconds`. calls: in all."""

    def __init__(self, seconds: float, *, calls: int) -> None:
        self._seconds, self._calls = seconds, calls
        self._start = self._first = time.monotonic()
        self._done = self._done_at_first = 0

    def __call__(self, calls: int) -> None:
        """Count so many more as done."""
        now = time.monotonic()
        if not self._done:  # the first one also loads and builds what the others use
            self._first, self._done_at_first = now, calls
        self._done += calls
        timed, spent = self._done - self._done_at_first, now - self._start
        foreseen = (now - self._first) / timed * self._calls if timed >= _CALLS_TO_JUDGE else 0.0
        if spent > self._seconds or (spent > 0.1 * self._seconds and foreseen > 2 * self._seconds):
            raise _TooSlowError


def verify_bits(
    model: DensityModel,
    images_NCHW: np.ndarray,
    labels_N: np.ndarray | None = None,
    *,
    claimed_nats: float,
    batch_size: int = 100,
    method: str | None = None,
    advance: Advance = no_progress,
) -> Verification:
    """Compress the images, decompress them, and compare.

    Args:
        model: The model that the claim is about.
        images_NCHW: Integer levels 0 to K-1.
        labels_N: A class or NO_LABEL for each image; None codes without labels.
        claimed_nats: −log p of all of them, by whole-image `log_prob`.
        batch_size: Images a network call, and a stream.
        method: See `compress`.
        advance: See `compress`.

    Raises:
        CodecError: As `compress` and `decompress`; also DataError, ConfigError and MissingPackageError.
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
