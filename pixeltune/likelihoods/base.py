"""What a likelihood is: network output θ to nats, to samples, and to the probabilities of all levels.

Legend of shapes: B batch, C colours, K levels, P parameters, N noise numbers a pixel, j earlier colours, H×W pixels.
A likelihood holds no weights. It is univariate on a subpixel-causal network, whose θ_BCPHW has already seen the earlier
colours, and joint over a pixel's colours on a pixel-causal one, whose θ_BPHW has not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltune.config import Causality


@dataclass(frozen=True)
class Likelihood(ABC):
    """A distribution over the C colours and K levels of each pixel, given the network's output there."""

    channels: int
    levels: int
    causality: Causality

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P: numbers per colour of a pixel (subpixel-causal), or per pixel (pixel-causal)."""

    @property
    @abstractmethod
    def num_noise(self) -> int:
        """N: uniform numbers that draw one pixel, all its colours."""

    @abstractmethod
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        """Nats (B,) of integer levels, in float32 whatever the network computed in; float64 if θ is."""

    @abstractmethod
    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        """Probabilities (B, K, H, W) of every level of colour j, given the levels of the j earlier colours."""

    def sample(self, theta: Tensor, noise_BNHW: Tensor, temperature: float = 1.0) -> Tensor:
        """Levels x_BCHW (int64) as a fixed function of θ and of uniforms in (0, 1), colour after colour.

        temperature: T > 0. Each level of each sub-pixel, given those before it, is as probable as p^(1/T), normalised:
        at T < 1 likely levels come more often than the model says, near 0 the likeliest alone; 1 is the model.
        """
        noise_BCHW = noise_BNHW[:, -self.channels :]
        x_BCHW = noise_BCHW.new_zeros(noise_BCHW.shape, dtype=torch.int64)
        for j in range(self.channels):
            probs_BKHW = _tempered(self.table(theta, x_BCHW[:, :j]), temperature)
            x_BCHW[:, j] = inverse_cdf(probs_BKHW, noise_BCHW[:, j])
        return x_BCHW

    @property
    def is_joint(self) -> bool:
        """Whether the colours of a pixel are coupled here, because the network does not couple them."""
        return self.causality is Causality.PIXEL

    @property
    def num_pairs(self) -> int:
        """Pairs (j, i) of a colour and an earlier one: C(C−1)/2, in the order (1,0), (2,0), (2,1), …."""
        return self.channels * (self.channels - 1) // 2

    def theta_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """(B, P, H, W) where joint, else (B, C, P, H, W)."""
        colours = () if self.is_joint else (self.channels,)
        return (batch, *colours, self.num_params, height, width)

    def scale(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Levels 0…K−1 to [−1, 1]: x̃ = 2x/(K−1) − 1, exactly ±1 at the edges."""
        top = self.levels - 1
        return (2 * x.to(dtype) - top) / top

    def noise(
        self,
        batch: int,
        height: int,
        width: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Uniforms (B, N, H, W) in the open interval (0, 1), drawn where the generator lives."""
        shape = (batch, self.num_noise, height, width)
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        # torch.rand draws from [0, 1) in steps of eps/2; zero, whose logit is infinite, moves up by one step.
        return uniform.clamp_(min=torch.finfo(dtype).eps / 2).to(device)


def pair_index(colour: int, earlier: int) -> int:
    """Where the pair (colour j, earlier colour i < j) stands among the C(C−1)/2."""
    return colour * (colour - 1) // 2 + earlier


def upcast(theta: Tensor) -> Tensor:
    """θ in float64 if it is float64, else in float32: bfloat16 changes a likelihood's second digit."""
    return theta if theta.dtype == torch.float64 else theta.float()


def _tempered(probs_BKHW: Tensor, temperature: float) -> Tensor:
    """Probabilities as p^(1/T), normalised; a level that cannot be stays so."""
    if temperature == 1:
        return probs_BKHW
    log_BKHW = probs_BKHW.log()
    return ((log_BKHW - log_BKHW.amax(1, keepdim=True)) / temperature).softmax(1)  # the likeliest stays at 0


def inverse_cdf(probs_BKHW: Tensor, uniform_BHW: Tensor) -> Tensor:
    """The first level (B, H, W) at which the cumulative probability exceeds the uniform."""
    below_BKHW = probs_BKHW.cumsum(1) <= uniform_BHW[:, None]
    # The last cumulative sum may round to just under one, and the uniform lie above it.
    return below_BKHW.sum(1).clamp(max=probs_BKHW.shape[1] - 1)
