"""Lossless coding: images as the bits that a model's probabilities are worth, and back, with a range coder.

A claimed −log p becomes a file of about as many bits, from which the images come back. Coder and decoder make the same
walk through the network's calls: each θ is computed from levels that both know, in the same shapes, so that both see
the same numbers. The coder never shows the network a level that the decoder does not have yet: a network that looks
ahead gains nothing by it, and its code is longer than its −log₂ p.

The tables are made in float64. constriction rounds them to 24 bits, never to nothing, so that every level can be coded.
That and the coder's arithmetic cost 1e-4 to 4e-4 bits a sub-pixel, the end of a stream up to 64 bits. Each batch is a
stream.

Legend of shapes: B batch, N images, C colours, K levels, n sites drawn in a call, H×W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixeltune.errors import CodecError, ConfigError, DataError
from pixeltune.likelihoods import Likelihood
from pixeltune.models import DensityModel
from pixeltune.models.inputs import require_levels
from pixeltune.packages import require_packages
from pixeltune.sampling.ancestral import Sites, Walk, full_passes, stepped
from pixeltune.sampling.cached import ModelStepper
from pixeltune.sampling.coded_file import Header, pack, unpack
from pixeltune.sampling.determinism import NumericEnvironment, fixed_numbers, model_hash
from pixeltune.sampling.labels import checked_labels
from pixeltune.sampling.request import Advance, no_progress

WALKS: dict[str, Walk] = {"cached": stepped, "naive": full_passes}
"""How θ is computed, by the name that a file keeps: another way adds up in another order."""

Code = Callable[[Sites, int, np.ndarray], np.ndarray]
"""The levels (B·n,) of one colour of the sites of a call, from their table (B·n, K): put on a stream, or taken."""


@dataclass(frozen=True)
class DecodedImages:
    """Decoded images and labels.

    images_NCHW: uint8 levels. labels_N: int64, what each was coded given; None if the model takes no labels.
    """

    images_NCHW: np.ndarray
    labels_N: np.ndarray | None


def compress(
    model: DensityModel,
    images_NCHW: np.ndarray,
    labels_N: np.ndarray | None = None,
    *,
    batch_size: int = 100,
    method: str | None = None,
    advance: Advance = no_progress,
) -> bytes:
    """Compress images of integer levels, each coded given its label, if it has one.

    Args:
        model: Its probabilities code the images.
        images_NCHW: Integer levels 0 to K-1.
        labels_N: A class or NO_LABEL for each image; None codes without labels.
        batch_size: Images a network call, and a stream.
        method: A name in `WALKS`; None takes `cached` where the network can be stepped through, else `naive`.
        advance: Called with the number of network calls done since the last time.

    Returns:
        The bytes of a file that `decompress` reads.

    Raises:
        CodecError: The model has no code.
        MissingPackageError: constriction is not installed.
        DataError: The images are not the model's.
        ConfigError: The labels are not the model's.
    """
    require_codable(model)
    images_NCHW = _levels(model, images_NCHW)
    label_N = checked_labels(model, len(images_NCHW), labels_N)
    streams = []
    with fixed_numbers(model):
        method = method or _fastest(model)
        walk = _walk(method)
        for x_BCHW, label_B in zip(
            torch.from_numpy(images_NCHW).split(batch_size), label_N.split(batch_size), strict=True
        ):
            encoder = _Encoder(model.split.to_sites(x_BCHW))
            _walk_batch(model, walk, label_B, encoder, advance)
            streams.append(encoder.words)
        numbers = NumericEnvironment.of(model)
    header = Header(
        count=len(images_NCHW),
        form=model.form,
        batch_size=batch_size,
        method=method,
        model=model_hash(model),
        numbers=numbers,
        labels=None if model.conditioning is None else label_N.tolist(),
        images_checksum=_checksum(images_NCHW),
        stream_words=[len(words) for words in streams],
    )
    return pack(header, streams)


def decompress(content: bytes, model: DensityModel, *, advance: Advance = no_progress) -> DecodedImages:
    """Return the images of a file that `compress` wrote with this model, with as many CPU threads as then.

    Args:
        content: The bytes of the file.
        model: The model that wrote it.
        advance: Called with the number of network calls done since the last time.

    Raises:
        CodecError: Before decoding, where the file is foreign, damaged or cut, the model another, or its numbers would
            differ; afterwards, where the images are not those that were compressed.
        MissingPackageError: constriction is not installed.
    """
    require_codable(model)
    coded = unpack(content)
    header, walk = coded.header, _walk(coded.header.method)
    _require_model(header, model)
    label_N = checked_labels(model, header.count, None if header.labels is None else torch.tensor(header.labels))
    batches = []
    with fixed_numbers(model, threads=header.numbers.threads):
        _require_numbers(header, model)
        for words, label_B in zip(coded.streams, label_N.split(header.batch_size), strict=True):
            decoder = _Decoder(words)
            batches.append(_walk_batch(model, walk, label_B, decoder, advance).to("cpu", torch.uint8).numpy())
            decoder.require_end()
    images_NCHW = np.concatenate(batches)
    if _checksum(images_NCHW) != header.images_checksum:
        raise _other_numbers("their checksum differs")
    return DecodedImages(images_NCHW, None if header.labels is None else np.asarray(header.labels, dtype=np.int64))


# --- One batch, in either direction -----------------------------------------------------------------------------------


def _walk_batch(model: DensityModel, walk: Walk, label_B: Tensor, code: Code, advance: Advance) -> Tensor:
    """Return levels (B, C, H, W), int64, of one stream."""

    def answer(sites: Sites, theta: Tensor) -> Tensor:
        levels_Bcn = _code_sites(model.likelihood, sites, theta, code)
        advance(1)
        return levels_Bcn

    weight = next(model.parameters())
    s = model.features(weight.new_zeros(len(label_B), *model.form.shape), label_B.to(weight.device))
    return walk(model, len(label_B), s, answer)


def _code_sites(likelihood: Likelihood, sites: Sites, theta: Tensor, code: Code) -> Tensor:
    """Return levels (B, c, n) of the sites of a call, coded colour after colour."""
    batch = len(theta)
    levels_BCn1 = theta.new_zeros((batch, likelihood.channels, len(sites.rows), 1), dtype=torch.int64)
    for colour in range(likelihood.channels)[sites.colours]:
        table_BKn1 = likelihood.table(theta.double(), levels_BCn1[:, :colour])
        levels = code(sites, colour, _checked_table(table_BKn1.movedim(1, -1).flatten(0, 2)))
        levels_BCn1[:, colour] = torch.from_numpy(levels).to(theta.device, torch.int64).reshape(batch, -1, 1)
    return levels_BCn1[:, sites.colours, :, 0]


class _Encoder:
    """Writer that puts the levels of images, as the likelihood takes them, on a stream."""

    def __init__(self, x: Tensor) -> None:
        stream = _constriction()
        self._x, self._encoder, self._family = x, stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)

    def __call__(self, sites: Sites, colour: int, table: np.ndarray) -> np.ndarray:
        """Read the levels from the images."""
        symbols: np.ndarray = self._x[:, colour, sites.rows, sites.cols].flatten().int().numpy()
        self._encoder.encode(symbols, self._family, table)
        return symbols

    @property
    def words(self) -> np.ndarray:
        """Return the stream, uint32."""
        return np.asarray(self._encoder.get_compressed())


class _Decoder:
    """Reader that takes levels from a stream."""

    def __init__(self, words: np.ndarray) -> None:
        stream = _constriction()
        self._decoder, self._family = stream.queue.RangeDecoder(words), stream.model.Categorical(perfect=False)

    def __call__(self, _sites: Sites, _colour: int, table: np.ndarray) -> np.ndarray:
        """Read the levels from the stream."""
        try:
            return np.asarray(self._decoder.decode(self._family, table))
        except AssertionError:  # so constriction calls a stream that no table like this can have written
            raise _other_numbers("a stream does not fit the probabilities") from None

    def require_end(self) -> None:
        """Require that all of the stream has been read."""
        if not self._decoder.maybe_exhausted():
            raise _other_numbers("a stream is longer than they are")


def _constriction() -> Any:
    """Return constriction.stream, which is an extra."""
    require_packages("coding", "constriction")
    import constriction

    return constriction.stream


# --- What must hold ---------------------------------------------------------------------------------------------------


def _walk(method: str) -> Walk:
    if method not in WALKS:
        raise CodecError(f"the method must be one of {', '.join(WALKS)}, but got {method!r}")
    return WALKS[method]


def _fastest(model: DensityModel) -> str:
    """Return `cached`, unless the network has functions, or looks at pixels, that it cannot step."""
    x_BCHW = next(model.parameters()).new_zeros(1, *model.form.shape)
    try:
        ModelStepper(model, 1, model.features(x_BCHW))
    except ConfigError:
        return "naive"
    return "cached"


def require_codable(model: DensityModel) -> None:
    """Raise CodecError where the model has no code; MissingPackageError without constriction."""
    _constriction()
    if model.is_bound:
        raise CodecError(
            f"only an exact likelihood can be coded, but family {model.config.model.family} has a bound: -ELBO is the "
            "length of a code only with bits-back coding, which pixeltune lacks"
        )
    dtype = next(model.parameters()).dtype
    if dtype not in (torch.float32, torch.float64):
        raise CodecError(f"a model must be in float32 or float64 to be coded with, but this one is in {dtype}")


def _require_model(header: Header, model: DensityModel) -> None:
    found = model_hash(model)
    if header.model != found:
        raise CodecError(
            f"a compressed file must be read with the model that wrote it, {header.model}, but got {found}: "
            "other weights or another configuration"
        )


def _require_numbers(header: Header, model: DensityModel) -> None:
    differences = header.numbers.differences(NumericEnvironment.of(model))
    if differences:
        raise CodecError(
            "a compressed file must be read where the network's numbers are those that wrote it, but "
            f"{'; '.join(differences)}"
        )


def _levels(model: DensityModel, images_NCHW: np.ndarray) -> np.ndarray:
    """Return the images as uint8 of their own memory."""
    given = torch.from_numpy(np.array(images_NCHW))
    require_levels(given, model.form)
    if not len(given):
        raise DataError("images to compress must be at least 1, but got none")
    return given.to(torch.uint8).numpy()


def _checked_table(table: Tensor) -> np.ndarray:
    """Return the table (B·n, K) for constriction, which takes negative numbers without a word."""
    if not bool((table.isfinite() & (table >= 0)).all() & (table.sum(1) > 0).all()):
        raise CodecError("probabilities must be finite, at least 0 and not all 0, but the model gives others")
    return np.ascontiguousarray(table.cpu().numpy())


def _checksum(images_NCHW: np.ndarray) -> str:
    return hashlib.sha256(images_NCHW.tobytes()).hexdigest()[:16]


def _other_numbers(symptom: str) -> CodecError:
    return CodecError(
        f"the decoded images must be those that were compressed, but {symptom}: the network's numbers here are not "
        "those that wrote the file, though what it names of them agrees; decode on the machine that compressed"
    )
