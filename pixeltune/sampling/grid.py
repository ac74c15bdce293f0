"""Images side by side in one PNG."""

from __future__ import annotations

import io
import math
import textwrap
import unicodedata
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pixeltune.files import write_whole

_GREY = 128
_GAP = 6
"""Rows of white between two parts of a picture."""
_FONT_SIZE = 13


def save_grid(
    images_NCHW: Tensor,
    location: str | Path,
    levels: int,
    columns: int | None = None,
    zoom: int = 1,
    *,
    hidden_NHW: Tensor | None = None,
    gap_after: int | None = None,
    caption: str = "",
) -> bytes:
    """Write images of integer levels 0…K−1 as a PNG and return its bytes.

    Args:
        images_NCHW: Integer levels. One channel is grey, three are RGB; of any other number the first one is shown,
            grey.
        location: Path or URI.
        levels: K.
        columns: Images a row; None for a square.
        zoom: Side of the square that shows one pixel.
        hidden_NHW: Bool, pixels that are shown as plain grey.
        gap_after: Rows of images above a white gap; None for no gap.
        caption: Words below, and in the file's own description.

    Returns:
        The bytes of the PNG.
    """
    from torchvision.utils import make_grid  # it loads all of torchvision, seconds that sampling itself can do without

    if images_NCHW.shape[1] != 3:
        images_NCHW = images_NCHW[:, :1]
    shades_NCHW = (images_NCHW.float() * (255 / (levels - 1))).round().to(torch.uint8).cpu()
    if hidden_NHW is not None:
        shades_NCHW = shades_NCHW.masked_fill(hidden_NHW[:, None].cpu(), _GREY)
    shades_NCHW = shades_NCHW.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    columns = columns or math.ceil(math.sqrt(len(shades_NCHW)))
    grid_3HW = make_grid(shades_NCHW, nrow=columns, padding=1, pad_value=_GREY)
    if gap_after is not None:
        place = gap_after * (shades_NCHW.shape[2] + 1) + 1
        white = grid_3HW.new_full((3, _GAP, grid_3HW.shape[2]), 255)
        grid_3HW = torch.cat([grid_3HW[:, :place], white, grid_3HW[:, place - 1 :]], dim=1)
    pixels = grid_3HW.permute(1, 2, 0) if shades_NCHW.shape[1] == 3 else grid_3HW[0]
    picture = _captioned(Image.fromarray(pixels.contiguous().numpy()), caption)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", pnginfo=_description(caption))
    write_whole(str(location), stream.getvalue())
    return stream.getvalue()


def _captioned(picture: Image.Image, caption: str) -> Image.Image:
    """Return the picture with words on a white strip below it."""
    if not caption:
        return picture
    font = ImageFont.load_default(_FONT_SIZE)
    letters = int(picture.width / font.getlength("n"))
    lines = textwrap.wrap(writable(caption, font), max(letters, 12))
    height = len(lines) * (_FONT_SIZE + 4) + 6
    white = Image.new(picture.mode, (picture.width, picture.height + height), "white")
    white.paste(picture)
    draw = ImageDraw.Draw(white)
    for line, text in enumerate(lines):
        draw.text((4, picture.height + 3 + line * (_FONT_SIZE + 4)), text, fill="black", font=font)
    return white


_SIMPLER = {"×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "≤": "<=", "≥": ">=", "±": "+-", "→": "->"}


def writable(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Return a text with simpler characters, or question marks, in place of those that a font lacks."""
    return "".join(letter if _has_glyph(letter, font) else _simpler(letter, font) for letter in text)


def _simpler(letter: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    base = _SIMPLER.get(letter) or unicodedata.normalize("NFKD", letter)
    kept = [part for part in base if not unicodedata.combining(part)]
    return "".join(part if _has_glyph(part, font) else "?" for part in kept)


def _has_glyph(letter: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> bool:
    """Return whether a font draws a letter other than its sign for letters that it lacks."""
    lacking = font.getmask("\uffff")
    drawn = font.getmask(letter)
    return letter.isspace() or (drawn.size, bytes(drawn)) != (lacking.size, bytes(lacking))


def _description(caption: str) -> PngInfo | None:
    if not caption:
        return None
    about = PngInfo()
    about.add_itxt("Description", caption)
    return about
