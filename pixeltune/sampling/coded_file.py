"""The compressed file: magic, version, lengths, checksum, a header in JSON, then the streams.

It says all that decoding needs but the weights, whose hash it holds. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from pixeltune.config import ImageSpec
from pixeltune.config.section import Section
from pixeltune.errors import CodecError
from pixeltune.sampling.determinism import NumericEnvironment

_MAGIC = b"\x93ptcode\n"
_VERSION = 1
_PREFIX = struct.Struct("<8sIIQ32s")
"""Magic, format version, bytes of the header, bytes of the file, SHA-256 of all that follows."""


class Header(Section):
    """The description of the streams.

    count: images. form: of each image. batch_size: images a stream; the last one may hold fewer.
    method: how θ was computed; another one adds up in another order.
    model: hash of weights and configuration. numbers: what else θ depends on.
    labels: what each image was coded given, NO_LABEL where nothing; None if the model takes none.
    images_checksum: of the decoded images. stream_words: 32-bit words of each stream.
    """

    count: int = Field(ge=1)
    form: ImageSpec
    batch_size: int = Field(ge=1)
    method: str
    model: str
    numbers: NumericEnvironment
    labels: list[int] | None
    images_checksum: str
    stream_words: list[Annotated[int, Field(ge=0)]]


@dataclass(frozen=True)
class CodedFile:
    """A header and its streams, each of uint32 words. num_bytes: of the whole file."""

    header: Header
    streams: list[np.ndarray]
    num_bytes: int

    @property
    def stream_bits(self) -> int:
        """Return the bits of all streams: the code of the images."""
        return 32 * sum(self.header.stream_words)

    @property
    def header_bits(self) -> int:
        """Return the bits of the rest of the file, the labels included."""
        return 8 * self.num_bytes - self.stream_bits


def pack(header: Header, streams: list[np.ndarray]) -> bytes:
    """Return the bytes of the file."""
    about = header.model_dump_json().encode()
    body = about + b"".join(words.astype("<u4").tobytes() for words in streams)
    return _PREFIX.pack(_MAGIC, _VERSION, len(about), _PREFIX.size + len(body), hashlib.sha256(body).digest()) + body


def unpack(content: bytes) -> CodedFile:
    """Read what `pack` wrote; CodecError where it is foreign, of another version, cut short or damaged."""
    if content[: len(_MAGIC)] != _MAGIC[: len(content)] or not content:
        raise CodecError("a compressed file must be one that `pixeltune compress` wrote, but this is none")
    if len(content) < _PREFIX.size:
        raise CodecError(f"a compressed file must be whole, but this one is cut short after {len(content)} bytes")
    _, version, header_length, total, digest = _PREFIX.unpack_from(content)
    if version != _VERSION:
        raise CodecError(
            f"a compressed file must have format {_VERSION}, but this one has {version}: "
            "it is damaged, or another version of pixeltune wrote it"
        )
    if len(content) < total:
        raise CodecError(f"a compressed file must be whole, but this one is cut short: {len(content)} of {total} bytes")
    body = content[_PREFIX.size :]
    if len(content) > total or hashlib.sha256(body).digest() != digest:
        raise CodecError("a compressed file must be as it was written, but the checksum of this one differs: damaged")
    header, streams = _header(body[:header_length]), body[header_length:]
    # The checksum covers what follows the prefix, so that a damaged length of the header shows only here.
    batches = -(-header.count // header.batch_size)
    if len(streams) != 4 * sum(header.stream_words) or len(header.stream_words) != batches:
        raise CodecError(
            f"a compressed file must hold the streams that its header names, but {len(streams)} bytes follow a header "
            f"of {len(header.stream_words)} streams with {4 * sum(header.stream_words)} bytes for {header.count} "
            "images: damaged"
        )
    words = np.frombuffer(streams, dtype="<u4").astype(np.uint32)
    return CodedFile(header, np.split(words, np.cumsum(header.stream_words)[:-1]), len(content))


def _header(content: bytes) -> Header:
    try:
        return Header.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"`{'.'.join(map(str, first['loc']))}`: " if first["loc"] else ""
        raise CodecError(
            f"a compressed file must have a header of format {_VERSION}, but got {where}{first['msg']}: it is damaged, "
            "or another version of pixeltune wrote it"
        ) from None
