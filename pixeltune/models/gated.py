"""Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328, §2 and figure 2): two stacks, no blind spot.

The paper's vertical features v(i) include row i, and are shifted down one row wherever they enter the horizontal stack.
Here the image is shifted instead, once, in layer 0: convolutions commute with shifts, so every vertical feature is the
paper's, one row lower (but for row 0, where the features of an empty image replace zeros), and no link needs
a shift. Later layers include their own row. Leaving it out again, as some ports do, would lose a row of width at each
layer, and the blind spot would be back: here row i−1 is seen as wide as the rows above it.

The whole vertical stream at row i has seen rows above i only, which every colour of row i may read. So neither it nor
its link to the horizontal stack carries a colour mask.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixeltune.config import GatedConfig
from pixeltune.models.blocks import LayerBlock
from pixeltune.models.dropout import Dropout
from pixeltune.models.layers import AddCondition, Mask, ShiftedConv2d, head, own_pixel, rows_above, this_row


class GatedPixelCNN(nn.Module):
    """Images x_BCHW in [−1, 1] to θ (B, C·num_params, H, W), or (B, num_params, H, W) if pixel-causal."""

    def __init__(self, config: GatedConfig, *, in_channels: int, num_params: int, condition_features: int = 0) -> None:
        super().__init__()
        colours = config.colours_ordered(in_channels)
        self.layers = nn.ModuleList(
            GatedLayer(
                config.channels if index else in_channels,
                config.channels,
                kernel_size=config.kernel_size,
                mask=Mask.B if index else Mask.A,
                colours=colours,
                dropout=config.dropout,
                condition_features=condition_features,
            )
            for index in range(config.layers)
        )
        self.head = head(config.channels, config.head_channels, colours * num_params, colours=colours)

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        """Return θ, flat. s: features of label and latent."""
        first, *later = self.layers
        v_pregate, h = first(x_BCHW, x_BCHW, s)
        for layer in later:
            v_pregate, h = layer(gate(v_pregate), h, s)
        theta: Tensor = self.head(h)
        return theta


class GatedLayer(LayerBlock):
    """A gated layer: y = tanh(W_f∗x + V_f∗s) ⊙ σ(W_g∗x + V_g∗s) in both stacks (equations 2 to 4, figure 2).

    Mask A makes it layer 0, without residual.
    """

    residual: ShiftedConv2d | None

    def __init__(
        self,
        in_channels: int,
        features: int,
        *,
        kernel_size: int,
        mask: Mask,
        colours: int,
        dropout: float,
        condition_features: int = 0,
    ) -> None:
        super().__init__()
        F, reach, is_first = features, kernel_size // 2, mask is Mask.A
        self.vertical = rows_above(in_channels, 2 * F, rows=reach + 1, width=kernel_size, own_row=not is_first)
        self.vertical_to_horizontal = own_pixel(2 * F, 2 * F, colours=1, bias=False)
        self.horizontal = this_row(in_channels, 2 * F, reach=reach, mask=mask, colours=colours, gates=2)
        self.dropout = Dropout(dropout)
        self.residual = None if is_first else own_pixel(F, F, colours=colours)
        self.vertical_label = AddCondition(condition_features, 2 * F)
        self.horizontal_label = AddCondition(condition_features, 2 * F)

    def forward(self, v: Tensor, h: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return vertical features before their gate (B, 2F, H, W), unused by the last layer, and h (B, F, H, W)."""
        v_pregate = self.vertical_label(self.vertical(v), s)
        h_pregate = self.horizontal_label(self.horizontal(h) + self.vertical_to_horizontal(v_pregate), s)
        y = self.dropout(gate(h_pregate))
        return v_pregate, y if self.residual is None else h + self.residual(y)


def gate(pregate: Tensor) -> Tensor:
    """Return tanh of the first half of the features times σ of the second."""
    f, g = pregate.chunk(2, dim=1)
    return f.tanh() * g.sigmoid()
