"""Images side by side in one PNG."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from pixeltune.files import write_whole


def save_grid(
    images_NCHW: Tensor, location: str | Path, levels: int, columns: int | None = None, zoom: int = 1
) -> bytes:
    """Write images of integer levels 0…K−1 as a PNG and return its bytes.

    location: path or URI. columns: images a row; None for a square. One channel is grey, three are RGB; of any other
    number the first one is shown, grey. zoom: side of the square that shows one pixel.
    """
    if images_NCHW.shape[1] != 3:
        images_NCHW = images_NCHW[:, :1]
    columns = columns or math.ceil(math.sqrt(len(images_NCHW)))
    images_NCHW = images_NCHW.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    shades = (images_NCHW.float() * (255 / (levels - 1))).round().to(torch.uint8)
    grid_3HW = make_grid(shades.cpu(), nrow=columns, padding=1, pad_value=128)
    pixels = grid_3HW.permute(1, 2, 0) if images_NCHW.shape[1] == 3 else grid_3HW[0]
    stream = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(stream, format="PNG")
    write_whole(str(location), stream.getvalue())
    return stream.getvalue()
