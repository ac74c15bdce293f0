"""Causal convolutions: kernels shifted and cropped, never masked for position.

A masked k×k kernel multiplies half of its weights by zero; a cropped kernel does not have them. Colours are the one
exception: the features of a pixel are split into contiguous groups, one a colour, and a mask on the centre column keeps
group j from reading group i at the same pixel unless i < j (mask A) or i ≤ j (mask B). Where the likelihood orders the
colours there is one group and no mask.

Legend of shapes: O output channels, I input channels, kh×kw kernel.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltune.models.blocks import LayerBlock


class Mask(StrEnum):
    """The mask types of van den Oord et al. 2016, arXiv 1601.06759, §3.4."""

    A = "A"
    """The first layer: the pixel's own colour is hidden, it is what θ predicts."""
    B = "B"
    """Later layers: a feature may read features of its own colour, which mask A has kept clean."""


class ShiftedConv2d(nn.Conv2d):
    """A convolution whose window is anywhere relative to its output pixel; the one primitive of this package.

    pad: (left, right, top, bottom), zeros added, or rows and columns cropped where negative, before a convolution
        without padding.
    stride: output pixels are those at every stride-th row and column.
    mask_OIkk: factor of 0 or 1 on each weight, for the colour order only.
    """

    mask_OIkk: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        pad: tuple[int, int, int, int],
        *,
        stride: int = 1,
        mask_OIkk: Tensor | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, bias=bias)
        self.pad = pad
        self.register_buffer("mask_OIkk", mask_OIkk, persistent=False)

    def forward(self, x_BIHW: Tensor) -> Tensor:
        """Return (B, O, H, W) of the input's height and width, each divided by the stride."""
        weight = self.weight if self.mask_OIkk is None else self.weight * self.mask_OIkk
        return F.conv2d(F.pad(x_BIHW, self.pad) if any(self.pad) else x_BIHW, weight, self.bias, self.stride)

    def extra_repr(self) -> str:
        """Return one line for print(model)."""
        masked = ", colour mask" if self.mask_OIkk is not None else ""
        strided = f", stride={self.stride}" if self.stride != (1, 1) else ""
        return f"{self.in_channels}, {self.out_channels}, kernel={self.kernel_size}, pad={self.pad}{strided}{masked}"


def rows_above(
    in_channels: int,
    out_channels: int,
    *,
    rows: int,
    width: int,
    own_row: bool = False,
    stride: int = 1,
    bias: bool = True,
) -> ShiftedConv2d:
    """Build the rows×width window above the output pixel, down to the row above, or to the own row if `own_row`."""
    shift = 0 if own_row else 1
    pad = (width // 2, width // 2, rows - 1 + shift, -shift)
    return ShiftedConv2d(in_channels, out_channels, (rows, width), pad, stride=stride, bias=bias)


def this_row(
    in_channels: int, out_channels: int, *, reach: int, mask: Mask, colours: int, gates: int = 1, bias: bool = True
) -> ShiftedConv2d:
    """Build a window of `reach` pixels to the left in the own row, and what mask and colours allow of the own pixel."""
    if mask is Mask.A and colours == 1:
        return ShiftedConv2d(in_channels, out_channels, (1, reach), (reach, -1, 0, 0), bias=bias)
    mask_OIkk = None
    if colours > 1:
        mask_OIkk = torch.empty(out_channels, in_channels, 1, reach + 1)
        if not mask_OIkk.is_meta:  # a model built without memory counts its parameters alone
            centre_OI = _colour_mask(in_channels, out_channels, mask=mask, colours=colours, gates=gates)
            mask_OIkk.fill_(1)
            mask_OIkk[..., 0, -1] = centre_OI
    return ShiftedConv2d(in_channels, out_channels, (1, reach + 1), (reach, 0, 0, 0), mask_OIkk=mask_OIkk, bias=bias)


def own_pixel(in_channels: int, out_channels: int, *, colours: int, gates: int = 1, bias: bool = True) -> ShiftedConv2d:
    """Build a 1×1 convolution under mask B's colour rule."""
    return this_row(in_channels, out_channels, reach=0, mask=Mask.B, colours=colours, gates=gates, bias=bias)


class AddCondition(nn.Module):
    """The sum y + V∗s, a layer's input from label and latent (see `conditioning`); y alone where there are none.

    V ~ N(0, 0.05²), as in the reference code of PixelCNN++. It carries no colour mask, because s has seen no pixel.
    """

    V: nn.Conv2d | None

    def __init__(self, condition_features: int, out_channels: int) -> None:
        super().__init__()
        self.V = None
        if condition_features:
            self.V = nn.Conv2d(condition_features, out_channels, kernel_size=1, bias=False)
            nn.init.normal_(self.V.weight, std=0.05)

    def forward(self, y_BOHW: Tensor, s_BDHW: Tensor | None) -> Tensor:
        """Return (B, O, H, W). s: as large as y, or one pixel."""
        if self.V is None:
            return y_BOHW
        assert s_BDHW is not None, "a conditional network must be handed features"
        return y_BOHW + self.V(s_BDHW)


class Conditioned(LayerBlock):
    """A module whose `forward` takes the features s of label and latent, or None, in addition to its input."""


class ConditionedSequential(nn.Sequential):
    """A Sequential that hands s to those of its modules that take it."""

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """Return the last module's output."""
        for module in self:
            x = module(x, s) if isinstance(module, Conditioned) else module(x)
        return x


class MaskedConv2d(Conditioned):
    """The k×k masked convolution of 1601.06759, §3.4, as the sum of the rows above and the own row up to the centre."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        mask: Mask,
        colours: int,
        condition_features: int = 0,
    ) -> None:
        super().__init__()
        reach = kernel_size // 2
        self.above = rows_above(in_channels, out_channels, rows=reach, width=kernel_size, bias=False)
        self.row = this_row(in_channels, out_channels, reach=reach, mask=mask, colours=colours)
        self.label = AddCondition(condition_features, out_channels)

    def forward(self, x_BIHW: Tensor, s: Tensor | None = None) -> Tensor:
        """Return features (B, O, H, W)."""
        features_BOHW: Tensor = self.label(self.above(x_BIHW) + self.row(x_BIHW), s)
        return features_BOHW


def head(in_channels: int, hidden: int, out_channels: int, *, colours: int) -> nn.Sequential:
    """Build ReLU, 1×1, ReLU, 1×1 to θ (1601.06759, table 1); without a hidden layer, ReLU and a single 1×1."""
    if not hidden:
        return nn.Sequential(nn.ReLU(), own_pixel(in_channels, out_channels, colours=colours))
    return nn.Sequential(
        nn.ReLU(),
        own_pixel(in_channels, hidden, colours=colours),
        nn.ReLU(),
        own_pixel(hidden, out_channels, colours=colours),
    )


def _colour_groups(channels: int, colours: int) -> Tensor:
    """Return the colour (channels,) of each channel: contiguous groups of as equal a size as can be."""
    return torch.arange(channels) * colours // channels


def _colour_mask(in_channels: int, out_channels: int, *, mask: Mask, colours: int, gates: int) -> Tensor:
    """Return which inputs an output may read at its own pixel, (O, I).

    gates: the outputs consist of this many blocks (tanh and σ of a gated layer), each with all colours.
    """
    in_I = _colour_groups(in_channels, colours)
    out_O = _colour_groups(out_channels // gates, colours).repeat(gates)
    return in_I < out_O[:, None] if mask is Mask.A else in_I <= out_O[:, None]
