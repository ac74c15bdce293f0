"""PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517), as the reference code, openai/pixel-cnn, has it.

Two streams run through a U-net of gated residual blocks: u has seen the rows above a pixel, ul those and what lies to
the left in its own row. Every kernel ends at its own pixel (ds: the rows above and the own one, as wide to both sides;
drs: up and to the left), and the first layer alone is shifted off it. Down-sampling keeps this: row i of the next stage
has seen rows 2i−1 and 2i, and stands for rows 2i and 2i+1 on the way back. There is no blind spot.

Differs from the reference in the number of stages, which is free, and in that the output may feed any likelihood.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltune.config import PixelCNNPPConfig
from pixeltune.models.layers import AddLabel, ShiftedConv2d, own_pixel, rows_above
from pixeltune.models.weight_norm import WeightNormed


class PixelCNNPP(nn.Module):
    """Images x_BCHW in [−1, 1] to θ (B, num_params, H, W)."""

    def __init__(self, config: PixelCNNPPConfig, *, in_channels: int, num_params: int, label_features: int = 0) -> None:
        super().__init__()
        features, n, later_stages = config.channels, config.layers, config.stages - 1
        self.u_first = down_shifted_conv2d(in_channels + 1, features, kernel_size=(2, 3))
        self.ul_first_above = down_shifted_conv2d(in_channels + 1, features, kernel_size=(1, 3))
        self.ul_first_left = down_right_shifted_conv2d(in_channels + 1, features, kernel_size=(2, 1))

        def blocks(count: int, *, has_skips: bool) -> list[nn.Module]:
            return [Block(config, has_skips=has_skips, label_features=label_features) for _ in range(count)]

        up_pass, down_pass = blocks(n, has_skips=False), blocks(n, has_skips=True)
        for _ in range(later_stages):
            up_pass += [DownSampling(features), *blocks(n, has_skips=False)]
            down_pass += [UpSampling(features), *blocks(n + 1, has_skips=True)]
        self.up_pass, self.down_pass = nn.ModuleList(up_pass), nn.ModuleList(down_pass)
        self.nin_out = nin(features, num_params)

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        """θ, flat. s: features of the label."""
        # The ones tell the image from the zeros that pad it.
        x = torch.cat([x_BCHW, torch.ones_like(x_BCHW[:, :1])], dim=1)
        u_list = [down_shift(self.u_first(x))]
        ul_list = [down_shift(self.ul_first_above(x)) + right_shift(self.ul_first_left(x))]
        for layer in self.up_pass:
            u, ul = layer(u_list[-1], ul_list[-1], s)
            u_list.append(u)
            ul_list.append(ul)

        u, ul = u_list.pop(), ul_list.pop()
        for layer in self.down_pass:
            skips = (u_list.pop(), ul_list.pop()) if isinstance(layer, Block) else ()
            u, ul = layer(u, ul, s, *skips)
        theta: Tensor = self.nin_out(F.elu(ul))
        return theta


class Block(nn.Module):
    """A gated residual block of each stream: ul reads u, and on the way back both read the features stacked before."""

    def __init__(self, config: PixelCNNPPConfig, *, has_skips: bool, label_features: int) -> None:
        super().__init__()
        u_skips, ul_skips = (1, 2) if has_skips else (0, 1)
        self.u = GatedResnet(config, down_shifted_conv2d, num_skips=u_skips, label_features=label_features)
        self.ul = GatedResnet(config, down_right_shifted_conv2d, num_skips=ul_skips, label_features=label_features)

    def forward(
        self, u: Tensor, ul: Tensor, s: Tensor | None, u_skip: Tensor | None = None, ul_skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both streams, each (B, F, H, W)."""
        s = at_resolution_of(u, s)
        u = self.u(u, a=u_skip, s=s)
        return u, self.ul(ul, a=u if ul_skip is None else torch.cat([u, ul_skip], dim=1), s=s)


class GatedResnet(nn.Module):
    """x + a·σ(b), where a and b are the halves of conv(dropout(f(conv(f(x)) + nin(f(skips))))) + V∗s."""

    nin_skip: WeightNormed | None

    def __init__(
        self, config: PixelCNNPPConfig, conv: Callable[..., WeightNormed], *, num_skips: int, label_features: int
    ) -> None:
        super().__init__()
        self.nonlinearity, widening = NONLINEARITIES[config.nonlinearity]
        features = config.channels
        self.conv_input = conv(widening * features, features)
        self.nin_skip = nin(num_skips * widening * features, features) if num_skips else None
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = conv(widening * features, 2 * features, init_scale=0.1)
        self.label = AddLabel(label_features, 2 * features)

    def forward(self, x: Tensor, a: Tensor | None = None, s: Tensor | None = None) -> Tensor:
        """(B, F, H, W). a: the skips, of one or two times as many features. s: features of the label."""
        f = self.nonlinearity
        c1 = self.conv_input(f(x))
        if self.nin_skip is not None:
            assert a is not None
            c1 = c1 + self.nin_skip(f(a))
        c2 = self.label(self.conv_out(self.dropout(f(c1))), s)
        value, gate = c2.chunk(2, dim=1)
        return x + value * gate.sigmoid()


class DownSampling(nn.Module):
    """To half the height and width."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.u = down_shifted_conv2d(features, features, stride=2)
        self.ul = down_right_shifted_conv2d(features, features, stride=2)

    def forward(self, u: Tensor, ul: Tensor, _s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams, (B, F, H/2, W/2)."""
        return self.u(u), self.ul(ul)


class UpSampling(nn.Module):
    """To twice the height and width."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.u = down_shifted_deconv2d(features, features)
        self.ul = down_right_shifted_deconv2d(features, features)

    def forward(self, u: Tensor, ul: Tensor, _s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams, (B, F, 2H, 2W)."""
        return self.u(u), self.ul(ul)


# --- The reference's convolutions -------------------------------------------------------------------------------------


def down_shifted_conv2d(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: tuple[int, int] = (2, 3),
    stride: int = 1,
    init_scale: float = 1.0,
) -> WeightNormed:
    """ds: the own row and those above, as wide to the left as to the right."""
    rows, width = kernel_size
    conv = rows_above(in_channels, out_channels, rows=rows, width=width, own_row=True, stride=stride)
    return WeightNormed(conv, init_scale=init_scale)


def down_right_shifted_conv2d(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: tuple[int, int] = (2, 2),
    stride: int = 1,
    init_scale: float = 1.0,
) -> WeightNormed:
    """drs: the own pixel, and those above, to the left, and above to the left."""
    pad = (kernel_size[1] - 1, 0, kernel_size[0] - 1, 0)
    return WeightNormed(
        ShiftedConv2d(in_channels, out_channels, kernel_size, pad, stride=stride), init_scale=init_scale
    )


def down_shifted_deconv2d(in_channels: int, out_channels: int) -> WeightNormed:
    """ds transposed, 2×3 at stride 2; the first column of its output is cropped."""
    conv = nn.ConvTranspose2d(in_channels, out_channels, (2, 3), stride=2, padding=(0, 1), output_padding=(0, 1))
    return WeightNormed(conv)


def down_right_shifted_deconv2d(in_channels: int, out_channels: int) -> WeightNormed:
    """drs transposed, 2×2 at stride 2."""
    return WeightNormed(nn.ConvTranspose2d(in_channels, out_channels, (2, 2), stride=2))


def nin(in_channels: int, out_channels: int) -> WeightNormed:
    """Network in network: 1×1."""
    return WeightNormed(own_pixel(in_channels, out_channels, colours=1))


def down_shift(x: Tensor) -> Tensor:
    """Each row in the place of the next; the first is zero."""
    return F.pad(x, (0, 0, 1, -1))


def right_shift(x: Tensor) -> Tensor:
    """Each column in the place of the next; the first is zero."""
    return F.pad(x, (1, -1, 0, 0))


def at_resolution_of(u: Tensor, s: Tensor | None) -> Tensor | None:
    """A map of the label averaged to the size of u; what is one pixel wide, or nothing, stays."""
    height, width = u.shape[-2:]
    if s is None or s.shape[-2:] in ((height, width), (1, 1)):
        return s
    return F.adaptive_avg_pool2d(s, (height, width))


def concat_elu(x: Tensor) -> Tensor:
    """[elu(x), elu(−x)]: twice the features, and no sign is lost (Shang et al. 2016, arXiv 1603.05201)."""
    return F.elu(torch.cat([x, -x], dim=1))


NONLINEARITIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "concat_elu": (concat_elu, 2),
    "elu": (F.elu, 1),
    "relu": (F.relu, 1),
}
"""f of the residual blocks, and how many features it makes of one."""
