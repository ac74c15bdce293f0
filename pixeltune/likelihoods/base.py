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
    """A distribution over the C colours and K levels of each pixel, given the network's output there.

    A subclass gives `num_params`, `num_noise`, `log_prob` and `table`; its options are further fields.

    Args:
        channels: C, the colours of a pixel.
        levels: K, the values of a colour: integers 0 to K−1.
        causality: SUBPIXEL where the network has seen the earlier colours of a pixel, PIXEL where it has not.
    """

    channels: int
    levels: int
    causality: Causality

    @property
    @abstractmethod
    def num_params(self) -> int:
        """Return P: numbers per colour of a pixel (subpixel-causal), or per pixel (pixel-causal)."""

    @property
    @abstractmethod
    def num_noise(self) -> int:
        """Return N: uniform numbers that draw one pixel, all its colours."""

    @abstractmethod
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the log-likelihood of integer levels.

        Args:
            theta: The network's output, of the shape `theta_shape`, in any floating dtype.
            x_BCHW: Integer levels 0 to K−1.

        Returns:
            Nats (B,), summed over pixels and colours, in float32; in float64 if θ is.
        """

    @abstractmethod
    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        """Return the probabilities of every level of the next colour.

        Args:
            theta: The network's output, of the shape `theta_shape`.
            earlier_BjHW: Integer levels of the j earlier colours of each pixel.

        Returns:
            Probabilities (B, K, H, W) of colour j; they sum to 1 over K.
        """

    def sample(self, theta: Tensor, noise_BNHW: Tensor, temperature: float = 1.0) -> Tensor:
        """Draw levels: a fixed function of θ and of uniforms, colour after colour.

        Args:
            theta: The network's output, of the shape `theta_shape`.
            noise_BNHW: Uniforms in the open interval (0, 1), as `noise` draws them.
            temperature: T > 0. Each level of each sub-pixel, given those before it, has the probability p^(1/T),
                normalised: below 1 likely levels come more often than in the model, near 0 only the likeliest; 1 is
                the model.

        Returns:
            Levels (B, C, H, W), int64.
        """
        noise_BCHW = noise_BNHW[:, -self.channels :]
        x_BCHW = noise_BCHW.new_zeros(noise_BCHW.shape, dtype=torch.int64)
        for j in range(self.channels):
            probs_BKHW = _tempered(self.table(theta, x_BCHW[:, :j]), temperature)
            x_BCHW[:, j] = inverse_cdf(probs_BKHW, noise_BCHW[:, j])
        return x_BCHW

    @property
    def is_joint(self) -> bool:
        """Return whether the colours of a pixel are coupled here, because the network does not couple them."""
        return self.causality is Causality.PIXEL

    @property
    def num_pairs(self) -> int:
        """Return the number of pairs (j, i) of a colour and an earlier one, C(C−1)/2, in the order (1,0), (2,0), …."""
        return self.channels * (self.channels - 1) // 2

    def theta_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of θ: (B, P, H, W) where joint, else (B, C, P, H, W).

        Args:
            batch: The number of images, B.
            height: Of the images, in pixels.
            width: Of the images, in pixels.
        """
        colours = () if self.is_joint else (self.channels,)
        return (batch, *colours, self.num_params, height, width)

    def scale(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Scale levels to [−1, 1]: x̃ = 2x/(K−1) − 1, exactly ±1 at the edges.

        Args:
            x: Integer levels 0…K−1, of any shape.
            dtype: Of the result.
        """
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
        """Draw uniforms (B, N, H, W) in the open interval (0, 1).

        Args:
            batch: B, the images.
            height: H.
            width: W.
            generator: The source of the numbers; they are drawn on its device.
            dtype: The type of the numbers.
            device: The device that they are moved to.
        """
        shape = (batch, self.num_noise, height, width)
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        # torch.rand draws from [0, 1) in steps of eps/2; zero, whose logit is infinite, moves up by one step.
        return uniform.clamp_(min=torch.finfo(dtype).eps / 2).to(device)


def pair_index(colour: int, earlier: int) -> int:
    """Return the index of the pair (colour j, earlier colour i < j) among the C(C−1)/2."""
    return colour * (colour - 1) // 2 + earlier


def upcast(theta: Tensor) -> Tensor:
    """Return θ in float64 if it is float64, else in float32: bfloat16 changes a likelihood's second digit."""
    return theta if theta.dtype == torch.float64 else theta.float()


def _tempered(probs_BKHW: Tensor, temperature: float) -> Tensor:
    """Return probabilities as p^(1/T), normalised; a level that cannot be stays so."""
    if temperature == 1:
        return probs_BKHW
    log_BKHW = probs_BKHW.log()
    return ((log_BKHW - log_BKHW.amax(1, keepdim=True)) / temperature).softmax(1)  # the likeliest stays at 0


def inverse_cdf(probs_BKHW: Tensor, uniform_BHW: Tensor) -> Tensor:
    """Return the first level (B, H, W) at which the cumulative probability exceeds the uniform."""
    below_BKHW = probs_BKHW.cumsum(1) <= uniform_BHW[:, None]
    # The last cumulative sum may round to just under one, and the uniform be above it.
    return below_BKHW.sum(1).clamp(max=probs_BKHW.shape[1] - 1)
