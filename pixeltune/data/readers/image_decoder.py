"""Image files to one array: every picture of one size and mode, decoded on threads."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixeltune.config import DataConfig
from pixeltune.data.readers.paths import in_one_line
from pixeltune.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_AS_THEY_ARE = ("L", "RGB")
_GREYABLE = ("L", "RGB", "1", "P", "CMYK")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
_GROUP = 64
_ORIENTATION = 0x0112
"""The EXIF tag that says how to turn an image; 1 is upright."""


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image and what to call it in an error."""

    name: str
    content: Path | bytes


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One picture as an array.

    pixels_HWC: uint8. size and mode are those of the array, after `data.resize` and `data.grey`.
    """

    name: str
    pixels_HWC: np.ndarray

    @property
    def look(self) -> str:
        """Return size and mode in words."""
        height, width, channels = self.pixels_HWC.shape
        return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"


class Decoder:
    """Decodes splits, all of one form: that of the first picture it sees.

    crop: makes of a decoded image, whose name is given for errors, the part that counts.
    """

    def __init__(self, config: DataConfig, crop: Callable[[Image.Image, str], Image.Image] | None = None) -> None:
        self.resize, self.grey, self.crop = config.resize, config.grey, crop
        self.reference: DecodedImage | None = None

    def decode_all(self, pictures: Iterable[EncodedImage], count: int) -> np.ndarray:
        """Decode (count, C, H, W) uint8; DataError names the picture that is damaged, or two that differ."""
        pixels_NCHW = np.empty((0,), dtype=np.uint8)
        for index, decoded in enumerate(_on_threads(self.decode, pictures)):
            self.reference = self.reference or decoded
            _require_same(self.reference, decoded)
            if index == 0:
                height, width, channels = decoded.pixels_HWC.shape
                pixels_NCHW = np.empty((count, channels, height, width), dtype=np.uint8)
            pixels_NCHW[index] = np.moveaxis(decoded.pixels_HWC, 2, 0)
        return pixels_NCHW

    def decode(self, picture: EncodedImage) -> DecodedImage:
        """Decode one picture; DataError where it cannot be decoded or has a mode that has no levels of 8 bits."""
        from PIL import Image

        try:
            stream = picture.content if isinstance(picture.content, Path) else io.BytesIO(picture.content)
            with Image.open(stream, formats=_FORMATS) as image:
                _require_one_frame_of_8_bits(image, picture.name)
                _require_upright(image, picture.name)  # before it is loaded, where Pillow turns a TIFF by itself
                image.load()
                pixels = np.asarray(self._formed(image, picture.name))
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
            raise DataError(
                f"{picture.name} must be a whole image file ({', '.join(_FORMATS)}), but is not: {in_one_line(error)}"
            ) from error
        except Image.DecompressionBombError as error:
            raise DataError(f"{picture.name} must be of a sane size, but is not: {in_one_line(error)}") from error
        return DecodedImage(picture.name, pixels[:, :, None] if pixels.ndim == 2 else pixels)

    def _formed(self, image: Image.Image, name: str) -> Image.Image:
        allowed = _GREYABLE if self.grey else _AS_THEY_ARE
        if image.mode not in allowed:
            help = "convert it" if self.grey or image.mode not in _GREYABLE else "convert it or set `data.grey`"
            raise DataError(f"images must have mode {' or '.join(allowed)}, but {name} has {image.mode}; {help}")
        if self.crop is not None:
            image = self.crop(image, name)
        if self.grey and image.mode != "L":
            image = image.convert("RGB").convert("L")
        if self.resize is not None and image.size != (self.resize, self.resize):
            from PIL import Image

            image = image.resize((self.resize, self.resize), Image.Resampling.BOX)
        return image


def _require_one_frame_of_8_bits(image: Image.Image, name: str) -> None:
    """Refuse what Pillow would cut down without a word, before it is decoded."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DataError(f"images must have one frame, but {name} has {frames}; save the frame that counts as an image")
    if any(_has_deep_channels(tile) for tile in getattr(image, "tile", ())):
        raise DataError(
            f"images must have 8 bits a channel, but {name} has more; convert it, rounding as you see fit, or store "
            "levels in an array"
        )


def _has_deep_channels(tile: tuple[object, ...]) -> bool:
    """Return whether a tile's decoder reads over 8 bits a channel: raw modes such as RGB;16B, or a PPM's maximum."""
    decoder, arguments = tile[0], tile[-1]
    values = arguments if isinstance(arguments, tuple) else (arguments,)
    if any(isinstance(value, str) and _bits_of(value) > 8 for value in values):
        return True
    return str(decoder).startswith("ppm") and any(isinstance(value, int) and value > 255 for value in values)


def _bits_of(raw_mode: str) -> int:
    """Return the bits a channel; the 15 and 16 bits of BGR;15 and BGR;16 are those of a pixel."""
    if raw_mode.startswith("BGR"):
        return 8
    digits = "".join(itertools.takewhile(str.isdecimal, raw_mode.partition(";")[2]))
    return int(digits) if digits else 8


def _require_upright(image: Image.Image, name: str) -> None:
    turned = image.getexif().get(_ORIENTATION, 1)
    if turned != 1:
        raise DataError(
            f"images must be stored upright, but {name} has a rotation in its EXIF data ({turned}); "
            "turn its pixels and remove the tag"
        )


def _require_same(first: DecodedImage, decoded: DecodedImage) -> None:
    if decoded.pixels_HWC.shape == first.pixels_HWC.shape:
        return
    option = "data.resize" if decoded.pixels_HWC.shape[:2] != first.pixels_HWC.shape[:2] else "data.grey"
    raise DataError(
        f"all images must have one size and mode, but {first.name} is {first.look} and {decoded.name} is "
        f"{decoded.look}; set `{option}` or take one out"
    )


def _on_threads(
    decode: Callable[[EncodedImage], DecodedImage], pictures: Iterable[EncodedImage]
) -> Iterator[DecodedImage]:
    """Decode in order, by groups (a future a picture costs as much as decoding a small one), a few in memory."""
    workers = min(16, os.cpu_count() or 1)
    waiting = iter(pictures)
    with ThreadPoolExecutor(workers) as pool:
        while several := list(itertools.islice(waiting, 4 * workers * _GROUP)):
            groups = [several[start : start + _GROUP] for start in range(0, len(several), _GROUP)]
            for group in pool.map(lambda group: [decode(picture) for picture in group], groups):
                yield from group
