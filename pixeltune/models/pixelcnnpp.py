"""PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517), as the reference code, openai/pixel-cnn, has it.

Two streams run through a U-net of gated residual blocks: u has seen the rows above a pixel, ul those and what is to
the left in its own row. Every kernel ends at its own pixel (ds: the rows above and the own one, as wide to both sides;
drs: up and to the left), and the first layer alone is shifted off it. Down-sampling keeps this: row i of the next stage
has seen rows 2i−1 and 2i, and represents rows 2i and 2i+1 on the way back. There is no blind spot.

The small variants of §3.3 have no way back: a straight stack of the same blocks at one resolution. Their 1×1 blocks add
depth without adding to the receptive field. The paper describes them in a paragraph; what it leaves open is read so.
- n blocks see 4n + 4 columns and 2n + 3 rows above, and 2n + 1 pixels to the left: for n = 2 and 3, 12×7 and 5, and
  16×9 and 7. The paper's 11×5 and 5, and 15×8, are as wide but for the column that ul reads of the u to its left, and
  less high.
- `nin`: three 1×1 blocks in each stream after every second block ("between every other layer"), ul reading u as ever.
- `autoregressive_channel`: after each block of a stream, and before the other stream reads it, the sets of its features
  are updated in turn by 1×1 gated residual blocks; each reads the sets before it.

Differs from the reference in the number of stages, which is free, and in that the output may feed any likelihood.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pixeltune.config import PixelCNNPPConfig
from pixeltune.models.blocks import LayerBlock
from pixeltune.models.dropout import Dropout
from pixeltune.models.layers import AddCondition, ShiftedConv2d, own_pixel, rows_above
from pixeltune.models.weight_norm import WeightNormed

CHANNEL_SETS = 4
"""Sets of features of `autoregressive_channel`, as equal as can be; fewer where there are fewer features. How many is
our reading."""
NIN_BLOCKS = 3
"""1×1 blocks after every second block of `nin` (§3.3)."""


class PixelCNNPP(nn.Module):
    """Images x_BCHW in [−1, 1] to θ (B, num_params, H, W)."""

    def __init__(
        self, config: PixelCNNPPConfig, *, in_channels: int, num_params: int, condition_features: int = 0
    ) -> None:
        super().__init__()
        features = config.channels
        self.u_first = down_shifted_conv2d(in_channels + 1, features, kernel_size=(2, 3))
        self.ul_first_above = down_shifted_conv2d(in_channels + 1, features, kernel_size=(1, 3))
        self.ul_first_left = down_right_shifted_conv2d(in_channels + 1, features, kernel_size=(2, 1))
        if config.variant == "full":
            up_pass, down_pass = _u_net(config, condition_features)
        else:
            up_pass, down_pass = list(_straight_stack(config, condition_features)), []
        self.up_pass, self.down_pass = nn.ModuleList(up_pass), nn.ModuleList(down_pass)
        self.nin_out = nin(features, num_params)

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        """Return θ, flat. s: features of label and latent."""
        # The ones distinguish the image from the zeros that pad it.
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


def _u_net(config: PixelCNNPPConfig, condition_features: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the layers on the way down in resolution, and on the way back."""
    n, features = config.layers, config.channels

    def blocks(count: int, *, has_skips: bool) -> list[nn.Module]:
        return [Block(config, has_skips=has_skips, condition_features=condition_features) for _ in range(count)]

    up_pass, down_pass = blocks(n, has_skips=False), blocks(n, has_skips=True)
    for _ in range(config.stages - 1):
        up_pass += [DownSampling(features), *blocks(n, has_skips=False)]
        down_pass += [UpSampling(features), *blocks(n + 1, has_skips=True)]
    return up_pass, down_pass


def _straight_stack(config: PixelCNNPPConfig, condition_features: int) -> Iterator[nn.Module]:
    """Yield the layers of a small variant (§3.3)."""
    for i in range(config.layers):
        if config.variant == "autoregressive_channel":
            yield AutoregressiveChannelBlock(config, condition_features=condition_features)
        else:
            yield Block(config, has_skips=False, condition_features=condition_features)
        if config.variant == "nin" and i % 2 == 1:
            for _ in range(NIN_BLOCKS):
                yield Block(config, has_skips=False, condition_features=condition_features, is_nin=True)


class Block(LayerBlock):
    """A gated residual block of each stream: ul reads u, and on the way back both read the features stacked before.

    is_nin: its convolutions are 1×1.
    """

    def __init__(
        self, config: PixelCNNPPConfig, *, has_skips: bool, condition_features: int, is_nin: bool = False
    ) -> None:
        super().__init__()
        u_conv, ul_conv = (nin, nin) if is_nin else (down_shifted_conv2d, down_right_shifted_conv2d)
        u_skips, ul_skips = (1, 2) if has_skips else (0, 1)
        features, condition = config.channels, {"condition_features": condition_features}
        self.u = GatedResnet(config, u_conv, features=features, skip_features=u_skips * features, **condition)
        self.ul = GatedResnet(config, ul_conv, features=features, skip_features=ul_skips * features, **condition)

    def forward(
        self, u: Tensor, ul: Tensor, s: Tensor | None, u_skip: Tensor | None = None, ul_skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both streams, each (B, F, H, W)."""
        s = at_resolution_of(u, s)
        u = self.u(u, a=u_skip, s=s)
        return u, self.ul(ul, a=u if ul_skip is None else torch.cat([u, ul_skip], dim=1), s=s)


class AutoregressiveChannelBlock(LayerBlock):
    """A block of each stream, whose output passes through its sets of features before it is read."""

    def __init__(self, config: PixelCNNPPConfig, *, condition_features: int) -> None:
        super().__init__()
        features, condition = config.channels, {"condition_features": condition_features}
        self.u = GatedResnet(config, down_shifted_conv2d, features=features, skip_features=0, **condition)
        self.u_sets = ChannelSets(config, **condition)
        self.ul = GatedResnet(config, down_right_shifted_conv2d, features=features, skip_features=features, **condition)
        self.ul_sets = ChannelSets(config, **condition)

    def forward(self, u: Tensor, ul: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both streams, each (B, F, H, W)."""
        u = self.u_sets(self.u(u, s=s), s)
        return u, self.ul_sets(self.ul(ul, a=u, s=s), s)


class ChannelSets(nn.Module):
    """Ordered, contiguous sets of features, each updated by a 1×1 gated residual block that reads the updated ones."""

    def __init__(self, config: PixelCNNPPConfig, *, condition_features: int) -> None:
        super().__init__()
        num_sets = min(CHANNEL_SETS, config.channels)
        ends = [config.channels * g // num_sets for g in range(num_sets + 1)]
        sets = list(itertools.pairwise(ends))
        self.sizes = [end - start for start, end in sets]
        self.blocks = nn.ModuleList(
            GatedResnet(config, nin, features=end - start, skip_features=start, condition_features=condition_features)
            for start, end in sets
        )

    def forward(self, x: Tensor, s: Tensor | None) -> Tensor:
        """Return features (B, F, H, W)."""
        updated: list[Tensor] = []
        for block, features in zip(self.blocks, x.split(self.sizes, dim=1), strict=True):
            updated.append(block(features, a=torch.cat(updated, dim=1) if updated else None, s=s))
        return torch.cat(updated, dim=1)


class GatedResnet(nn.Module):
    """A gated residual block, x + a·σ(b); a and b are the halves of conv(dropout(f(conv(f(x)) + nin(f(skips))))) + V∗s.

    features: of x. skip_features: of all skips together; 0 has none.
    """

    nin_skip: WeightNormed | None

    def __init__(
        self,
        config: PixelCNNPPConfig,
        conv: Callable[..., WeightNormed],
        *,
        features: int,
        skip_features: int,
        condition_features: int,
    ) -> None:
        super().__init__()
        self.nonlinearity, widening = NONLINEARITIES[config.nonlinearity]
        self.conv_input = conv(widening * features, features)
        self.nin_skip = nin(widening * skip_features, features) if skip_features else None
        self.dropout = Dropout(config.dropout)
        self.conv_out = conv(widening * features, 2 * features, init_scale=0.1)
        self.label = AddCondition(condition_features, 2 * features)

    def forward(self, x: Tensor, a: Tensor | None = None, s: Tensor | None = None) -> Tensor:
        """Return (B, F, H, W). a: the skips, concatenated. s: features of label and latent."""
        f = self.nonlinearity
        c1 = self.conv_input(f(x))
        if self.nin_skip is not None:
            assert a is not None
            c1 = c1 + self.nin_skip(f(a))
        c2 = self.label(self.conv_out(self.dropout(f(c1))), s)
        value, gate = c2.chunk(2, dim=1)
        return x + value * gate.sigmoid()


class DownSampling(LayerBlock):
    """To half the height and width."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.u = down_shifted_conv2d(features, features, stride=2)
        self.ul = down_right_shifted_conv2d(features, features, stride=2)

    def forward(self, u: Tensor, ul: Tensor, _s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both streams, (B, F, H/2, W/2)."""
        return self.u(u), self.ul(ul)


class UpSampling(LayerBlock):
    """To twice the height and width."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.u = down_shifted_deconv2d(features, features)
        self.ul = down_right_shifted_deconv2d(features, features)

    def forward(self, u: Tensor, ul: Tensor, _s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both streams, (B, F, 2H, 2W)."""
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
    """Build ds: the own row and those above, as wide to the left as to the right."""
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
    """Build drs: the own pixel, and those above, to the left, and above to the left."""
    pad = (kernel_size[1] - 1, 0, kernel_size[0] - 1, 0)
    return WeightNormed(
        ShiftedConv2d(in_channels, out_channels, kernel_size, pad, stride=stride), init_scale=init_scale
    )


def down_shifted_deconv2d(in_channels: int, out_channels: int) -> WeightNormed:
    """Build ds transposed, 2×3 at stride 2; the first column of its output is cropped."""
    conv = nn.ConvTranspose2d(in_channels, out_channels, (2, 3), stride=2, padding=(0, 1), output_padding=(0, 1))
    return WeightNormed(conv)


def down_right_shifted_deconv2d(in_channels: int, out_channels: int) -> WeightNormed:
    """Build drs transposed, 2×2 at stride 2."""
    return WeightNormed(nn.ConvTranspose2d(in_channels, out_channels, (2, 2), stride=2))


def nin(in_channels: int, out_channels: int, *, init_scale: float = 1.0) -> WeightNormed:
    """Build a network in network: 1×1."""
    return WeightNormed(own_pixel(in_channels, out_channels, colours=1), init_scale=init_scale)


def down_shift(x: Tensor) -> Tensor:
    """Move each row to the place of the next; the first is zero."""
    return F.pad(x, (0, 0, 1, -1))


def right_shift(x: Tensor) -> Tensor:
    """Move each column to the place of the next; the first is zero."""
    return F.pad(x, (1, -1, 0, 0))


def at_resolution_of(u: Tensor, s: Tensor | None) -> Tensor | None:
    """Average maps of label and latent to the size of u; what is one pixel wide, or None, stays."""
    height, width = u.shape[-2:]
    if s is None or s.shape[-2:] in ((height, width), (1, 1)):
        return s
    return F.adaptive_avg_pool2d(s, (height, width))


def concat_elu(x: Tensor) -> Tensor:
    """Return [elu(x), elu(−x)]: twice the features, and no sign is lost (Shang et al. 2016, arXiv 1603.05201)."""
    if x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling():
        both: Tensor = _ConcatELU.apply(x)
        return both
    return F.elu(torch.cat([x, -x], dim=1))


class _ConcatELU(torch.autograd.Function):
    """The function concat_elu with one exponential instead of two, keeping its output alone.

    With t = e^−|x| − 1, elu(±x) = max(±x, t): on the negative side t is the value, and x < t; on the other t ≤ 0 ≤ x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        t = x.abs().neg_().expm1_()
        y = torch.cat([torch.maximum(x, t), torch.maximum(x.neg(), t)], dim=1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        positive, negative = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, y).chunk(2, dim=1)  # from its result
        return positive - negative


NONLINEARITIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "concat_elu": (concat_elu, 2),
    "elu": (F.elu, 1),
    "relu": (F.relu, 1),
}
"""f of the residual blocks, and how many features it makes of one."""
