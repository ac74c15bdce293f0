"""Weight normalisation with data-dependent initialisation (Salimans and Kingma 2016, arXiv 1602.07868, §3).

Legend of shapes: B batch, I input and O output channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

_EPS = 1e-10
"""Added to variances, as in the reference code of PixelCNN++."""


class WeightNormed(nn.Module):
    """A convolution with the weight g·V/‖V‖, the norm taken per output channel; V ~ N(0, 0.05²), g = 1, b = 0.

    init_scale: standard deviation of the outputs after the initialisation by data.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, *, init_scale: float = 1.0) -> None:
        super().__init__()
        self.init_scale = init_scale
        nn.init.normal_(conv.weight, std=0.05)
        assert conv.bias is not None, "the initialisation by data needs a bias"
        nn.init.zeros_(conv.bias)
        # Output channels come first in a convolution's weight, and second in a transposed one's.
        self.conv = weight_norm(conv, dim=1 if isinstance(conv, nn.ConvTranspose2d) else 0)
        nn.init.ones_(self.g)

    @property
    def g(self) -> Tensor:
        """Return the norms, one an output channel, shaped to multiply V."""
        parametrization: Any = self.conv.parametrizations
        norms: Tensor = parametrization.weight.original0
        return norms

    @property
    def b(self) -> Tensor:
        """Return the biases (O,)."""
        bias: Tensor = self.conv.bias
        return bias

    def forward(self, x_BIHW: Tensor) -> Tensor:
        """Apply the convolution."""
        y_BOHW: Tensor = self.conv(x_BIHW)
        return y_BOHW

    def fit_to(self, y_BOHW: Tensor) -> None:
        """Set g and b, given its outputs, so that each output channel has mean 0 and deviation `init_scale`.

        A channel that is the same everywhere, as u is where an image has a single row left, keeps its norm: 1/√1e-10
        would scale up nothing but rounding, and the gradients with it.
        """
        variance_O, mean_O = torch.var_mean(y_BOHW, dim=(0, 2, 3), correction=0)
        varies_O = variance_O > _EPS
        scale_O = self.init_scale / torch.sqrt(variance_O + _EPS).where(varies_O, 1.0)
        self.g.mul_(scale_O.view_as(self.g))
        self.b.sub_(mean_O * scale_O)


@contextmanager
def initialising(network: nn.Module) -> Iterator[None]:
    """Fit each layer in turn to one pass of a batch; each passes its new output on to the next."""

    def fit(layer: WeightNormed, inputs: tuple[Tensor], y_BOHW: Tensor) -> Tensor:
        layer.fit_to(y_BOHW)
        return layer.forward(*inputs)

    layers = [module for module in network.modules() if isinstance(module, WeightNormed)]
    handles = [layer.register_forward_hook(fit) for layer in layers]
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def is_initialised_by_data(network: nn.Module) -> bool:
    """Return whether the network has layers to fit to a first batch."""
    return any(isinstance(module, WeightNormed) for module in network.modules())
