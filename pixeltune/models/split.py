"""Split: an image as s×s contiguous tiles, stacked on channels, whose pixels at one offset are drawn in the same call.

The network sees a small image of many channels and gives θ for all tiles at once; θ is then put back in the places of
the image, so that likelihood, audit and sampling go on as if there were no tiles. Only `order()` distinguishes them.
Given the past, the tiles' pixels at one offset are independent, unless they are coupled.

Published (loliverhennigh/pixel-cnn): tiles row-major, channels R0 G0 B0 R1 …. Where the network orders the colours, the
same channels are sorted by colour, R0 R1 … G0 G1 …: the reds of all tiles are drawn together, then the greens, which
see them all, and an image takes C·H·W/s² calls.

Where the tiles are coupled, the likelihood takes their pixels at one offset together, as one pixel of C·s² colours: its
θ and its levels are then on the tile's grid, as the network's do.

Legend of shapes: B batch, T = s² tiles, C colours, P parameters, H×W the image, h×w a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltune.config import Causality


@dataclass(frozen=True)
class Split:
    """Tiles of an image, s per axis, for a network of this causality.

    coupled: whether the likelihood takes all tiles together.
    """

    s: int
    causality: Causality
    coupled: bool = False

    @property
    def tiles(self) -> int:
        """Return T, the number of tiles."""
        return self.s**2

    def stack(self, x_BCHW: Tensor) -> Tensor:
        """Return the network's input (B, C·T, h, w)."""
        x_BTChw = to_tiles(x_BCHW, self.s)
        by_colour = self.causality is Causality.SUBPIXEL
        return (x_BTChw.transpose(1, 2) if by_colour else x_BTChw).flatten(1, 2)

    def place(self, theta: Tensor, num_params: int) -> Tensor:
        """Return θ of the image.

        The network's (B, T·P, h, w) as (B, P, H, W), or its (B, C·T·P, h, w) as (B, C, P, H, W). Coupled, the network's
        (B, P, h, w) is the likelihood's as it is.
        """
        if self.coupled:
            return theta
        theta_BtTPhw = theta.unflatten(1, (-1, self.tiles, num_params))
        theta_BTtPhw = theta_BtTPhw.transpose(1, 2)
        theta_BnHW = from_tiles(theta_BTtPhw.flatten(2, 3), self.s)
        return theta_BnHW if self.causality is Causality.PIXEL else theta_BnHW.unflatten(1, (-1, num_params))

    def to_sites(self, x_BCHW: Tensor) -> Tensor:
        """Return values of an image, such as levels, as the likelihood takes them: (B, C·T, h, w) where coupled."""
        return self.stack(x_BCHW) if self.coupled else x_BCHW

    def site_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what `to_sites` returns."""
        return (height // self.s, width // self.s) if self.coupled else (height, width)

    def from_sites(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W), the inverse of `to_sites`."""
        return from_tiles(x.unflatten(1, (self.tiles, -1)), self.s) if self.coupled else x

    def order(self, colours: int, height: int, width: int) -> Tensor:
        """Return (C, H, W) int64: offsets in raster order, with the colours inside where the network orders them."""
        # On the CPU also where a model is built without memory: its callers look at the numbers.
        h, w = height // self.s, width // self.s
        offset_1hw = torch.arange(h * w, device="cpu").reshape(1, h, w)
        if self.causality is Causality.PIXEL:
            return offset_1hw.repeat(colours, self.s, self.s)
        order_Chw = offset_1hw * colours + torch.arange(colours, device="cpu").reshape(colours, 1, 1)
        return order_Chw.repeat(1, self.s, self.s)


def to_tiles(x_BCHW: Tensor, s: int) -> Tensor:
    """Return (B, T, C, h, w), the tiles row-major."""
    H, W = x_BCHW.shape[-2:]
    x_BCshsw = x_BCHW.unflatten(3, (s, W // s)).unflatten(2, (s, H // s))
    return x_BCshsw.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def from_tiles(x_BTChw: Tensor, s: int) -> Tensor:
    """Return (B, C, H, W), the inverse of `to_tiles`."""
    x_BssChw = x_BTChw.unflatten(1, (s, s))
    return x_BssChw.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
