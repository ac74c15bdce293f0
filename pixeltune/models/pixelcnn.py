"""PixelCNN (van den Oord et al. 2016, arXiv 1601.06759, §3.5 and table 1), and its widespread simple variant.

Differs from the paper: masked kernels are sums of two cropped ones, each with its own initial weights; the features of
a colour are contiguous channels; any likelihood can follow the head, not only a softmax. The blind spot to the right
above a pixel is the paper's own.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixeltune.config import Causality, PixelCNNConfig
from pixeltune.models.layers import Mask, MaskedConv2d, head, own_pixel


class PixelCNN(nn.Module):
    """Images x_BCHW in [−1, 1] to θ (B, C·num_params, H, W), or (B, num_params, H, W) if pixel-causal."""

    def __init__(self, config: PixelCNNConfig, *, in_channels: int, num_params: int) -> None:
        super().__init__()
        colours = in_channels if config.causality is Causality.SUBPIXEL else 1
        body, width = {"residual": _residual_body, "simple": _simple_body}[config.variant](config, in_channels, colours)
        self.body = nn.Sequential(*body)
        self.head = head(width, config.head_channels, colours * num_params, colours=colours)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """θ, flat."""
        theta: Tensor = self.head(self.body(x_BCHW))
        return theta


class ResidualBlock(nn.Module):
    """x + (ReLU, 1×1 2h→h, ReLU, k×k mask B h→h, ReLU, 1×1 h→2h) (figure 5, left)."""

    def __init__(self, h: int, *, kernel_size: int, colours: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(),
            own_pixel(2 * h, h, colours=colours),
            nn.ReLU(),
            MaskedConv2d(h, h, kernel_size=kernel_size, mask=Mask.B, colours=colours),
            nn.ReLU(),
            nn.Dropout(dropout),
            own_pixel(h, 2 * h, colours=colours),
        )

    def forward(self, x_BFHW: Tensor) -> Tensor:
        """(B, 2h, H, W)."""
        features_BFHW: Tensor = x_BFHW + self.residual(x_BFHW)
        return features_BFHW


def _residual_body(config: PixelCNNConfig, in_channels: int, colours: int) -> tuple[list[nn.Module], int]:
    """The paper's layers before the head, and their output width."""
    h, k = config.channels, config.kernel_size
    first = MaskedConv2d(in_channels, 2 * h, kernel_size=config.first_kernel_size, mask=Mask.A, colours=colours)
    blocks = [ResidualBlock(h, kernel_size=k, colours=colours, dropout=config.dropout) for _ in range(config.layers)]
    return [first, *blocks], 2 * h


def _simple_body(config: PixelCNNConfig, in_channels: int, colours: int) -> tuple[list[nn.Module], int]:
    """A plain stack of masked convolutions, mask A first; the last one's ReLU is the head's."""
    h, k = config.channels, config.kernel_size
    body: list[nn.Module] = [
        MaskedConv2d(in_channels, h, kernel_size=config.first_kernel_size, mask=Mask.A, colours=colours)
    ]
    for _ in range(config.layers - 1):
        body += [*_norm(config), nn.ReLU(), nn.Dropout(config.dropout)]
        body += [MaskedConv2d(h, h, kernel_size=k, mask=Mask.B, colours=colours)]
    return [*body, *_norm(config)], h


def _norm(config: PixelCNNConfig) -> list[nn.Module]:
    return [nn.BatchNorm2d(config.channels)] if config.batch_norm else []
