"""PixelCNN (van den Oord et al. 2016, arXiv 1601.06759, §3.5 and table 1), and its widespread simple variant.

Differs from the paper: masked kernels are sums of two cropped ones, each with its own initial weights; the features of
a colour are contiguous channels; any likelihood can follow the head, not only a softmax; every masked convolution can
take a condition. The blind spot to the right above a pixel is the paper's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from pixeltune.config import PixelCNNConfig
from pixeltune.models.dropout import Dropout
from pixeltune.models.layers import Conditioned, ConditionedSequential, Mask, MaskedConv2d, head, own_pixel


class PixelCNN(nn.Module):
    """Images x_BCHW in [−1, 1] to θ (B, C·num_params, H, W), or (B, num_params, H, W) if pixel-causal."""

    def __init__(
        self, config: PixelCNNConfig, *, in_channels: int, num_params: int, condition_features: int = 0
    ) -> None:
        super().__init__()
        colours = config.colours_ordered(in_channels)
        build_body, width = {
            "residual": (_residual_body, 2 * config.channels),
            "simple": (_simple_body, config.channels),
        }[config.variant]
        self.body = ConditionedSequential(*build_body(config, in_channels, colours, condition_features))
        self.head = head(width, config.head_channels, colours * num_params, colours=colours)

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        """Return θ, flat. s: features of label and latent."""
        theta: Tensor = self.head(self.body(x_BCHW, s))
        return theta


class ResidualBlock(Conditioned):
    """A residual block, x + (ReLU, 1×1 2h→h, ReLU, k×k mask B h→h, ReLU, 1×1 h→2h) (figure 5, left)."""

    def __init__(self, h: int, *, kernel_size: int, colours: int, dropout: float, condition_features: int = 0) -> None:
        super().__init__()
        self.residual = ConditionedSequential(
            nn.ReLU(),
            own_pixel(2 * h, h, colours=colours),
            nn.ReLU(),
            MaskedConv2d(
                h, h, kernel_size=kernel_size, mask=Mask.B, colours=colours, condition_features=condition_features
            ),
            nn.ReLU(),
            Dropout(dropout),
            own_pixel(h, 2 * h, colours=colours),
        )

    def forward(self, x_BFHW: Tensor, s: Tensor | None = None) -> Tensor:
        """Return features (B, 2h, H, W)."""
        features_BFHW: Tensor = x_BFHW + self.residual(x_BFHW, s)
        return features_BFHW


def _residual_body(
    config: PixelCNNConfig, in_channels: int, colours: int, condition_features: int
) -> Iterator[nn.Module]:
    """Yield the paper's layers before the head."""
    h, common = config.channels, {"colours": colours, "condition_features": condition_features}
    yield MaskedConv2d(in_channels, 2 * h, kernel_size=config.first_kernel_size, mask=Mask.A, **common)
    for _ in range(config.layers):
        yield ResidualBlock(h, kernel_size=config.kernel_size, dropout=config.dropout, **common)


def _simple_body(
    config: PixelCNNConfig, in_channels: int, colours: int, condition_features: int
) -> Iterator[nn.Module]:
    """Yield a plain stack of masked convolutions, mask A first; the last one's ReLU is the head's."""
    h, common = config.channels, {"colours": colours, "condition_features": condition_features}
    yield MaskedConv2d(in_channels, h, kernel_size=config.first_kernel_size, mask=Mask.A, **common)
    for _ in range(config.layers - 1):
        yield from (*_norm(config), nn.ReLU(), Dropout(config.dropout))
        yield MaskedConv2d(h, h, kernel_size=config.kernel_size, mask=Mask.B, **common)
    yield from _norm(config)


def _norm(config: PixelCNNConfig) -> list[nn.Module]:
    return [nn.BatchNorm2d(config.channels)] if config.batch_norm else []
