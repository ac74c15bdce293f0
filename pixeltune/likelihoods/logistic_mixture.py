"""The discretised mixture of M logistics (Salimans et al. 2017, arXiv 1701.05517, §2.1 and §2.2).

Differs from the reference code, openai/pixel-cnn, in one point: the mass of a bin is exact at every scale, so that the
K levels sum to one; the reference approximates it where it falls below 1e-5, and sums to one within 7e-6. Any number
of levels and colours, and of pixels that share an indicator: those of the tiles of a split image, whose channels then
are ordered tile after tile. The colours of a pixel are coupled within its tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pixeltune.likelihoods.base import Likelihood, inverse_cdf, pair_index, upcast

MIN_LOG_SCALE = -7.0


@dataclass(frozen=True)
class _Mixture:
    """Parameters θ, named. G is C (each colour has its own weights) or 1 (one indicator for all colours of a pixel).

    coefficients: of each pair of colours, in (−1, 1); none where the network couples the colours.
    colours: of a tile.
    """

    logits_BGMHW: Tensor
    means_BCMHW: Tensor
    log_scales_BCMHW: Tensor
    coefficients_BQMHW: Tensor | None
    colours: int

    def mean(self, earlier_BjHW: Tensor) -> Tensor:
        """Return means (B, M, H, W) of colour j, shifted by the true earlier colours in [−1, 1] (§2.2)."""
        j = earlier_BjHW.shape[1]
        mean_BMHW = self.means_BCMHW[:, j]
        if self.coefficients_BQMHW is None:
            return mean_BMHW
        tile, colour = divmod(j, self.colours)
        num_pairs = self.colours * (self.colours - 1) // 2
        for i, x_BHW in enumerate(earlier_BjHW[:, j - colour :].unbind(1)):
            pair = tile * num_pairs + pair_index(colour, i)
            mean_BMHW = mean_BMHW + self.coefficients_BQMHW[:, pair] * x_BHW[:, None]
        return mean_BMHW


@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """The discretised mixture of M logistics.

    Joint θ: M logits, C·M means, C·M log-scales, M coefficients a pair. Univariate: 3·M a colour.

    Args:
        channels: See `Likelihood`.
        levels: See `Likelihood`.
        causality: See `Likelihood`.
        mixtures: M.
        tiles: T, the pixels that share an indicator; C counts the colours of all of them. More than one only where
            joint.

    References:
        Salimans et al. 2017, arXiv 1701.05517, §2.1 and §2.2.
    """

    mixtures: int = 10
    tiles: int = 1

    def __post_init__(self) -> None:
        assert self.channels % self.tiles == 0, f"{self.channels} channels do not divide into {self.tiles} tiles"
        assert self.is_joint or self.tiles == 1, "tiles share an indicator only where their colours do"

    @property
    def num_params(self) -> int:
        """Return P: 3M a colour, or M(1 + 2C + pairs) a pixel."""
        return self.mixtures * (1 + 2 * self.channels + self.num_pairs if self.is_joint else 3)

    @property
    def num_pairs(self) -> int:
        """Return the number of pairs of colours of the same tile."""
        colours = self.channels // self.tiles
        return self.tiles * (colours * (colours - 1) // 2)

    @property
    def num_noise(self) -> int:
        """Return N: the uniforms of the indicators, then one a colour for the logistics."""
        return self._num_indicators + self.channels

    @property
    def _num_indicators(self) -> int:
        return 1 if self.is_joint else self.channels

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return nats (B,): log Σ_m π_m Π_j p_m(x_j) a pixel, or the sum of log Σ_m π_m p_m(x_j) over its colours."""
        mixture = self._mixture(theta)
        log_mass_BGMHW = self._log_masses(mixture, x_BCHW)
        if self.is_joint:
            log_mass_BGMHW = log_mass_BGMHW.sum(1, keepdim=True)
        return (mixture.logits_BGMHW.log_softmax(2) + log_mass_BGMHW).logsumexp(2).sum((1, 2, 3))

    def sample(self, theta: Tensor, noise_BNHW: Tensor, temperature: float = 1.0) -> Tensor:
        """Draw indicator and logistic by inverse CDF; rounding to the nearest level gives the discretised mass exactly.

        At another temperature than 1 by the tables of all levels, as any likelihood.
        """
        if temperature != 1:
            return super().sample(theta, noise_BNHW, temperature)
        mixture = self._mixture(theta)
        indicator_noise, logistic_noise = noise_BNHW.split_with_sizes([self._num_indicators, self.channels], dim=1)
        weights_BGMHW = mixture.logits_BGMHW.softmax(2)
        x_BCHW = noise_BNHW.new_zeros(logistic_noise.shape, dtype=torch.int64)
        for j in range(self.channels):
            group = 0 if self.is_joint else j
            indicator_B1HW = inverse_cdf(weights_BGMHW[:, group], indicator_noise[:, group])[:, None]
            # Later colours were trained on grid values, so each colour is rounded before the next is drawn.
            mean_BMHW = mixture.mean(self.scale(x_BCHW[:, :j], weights_BGMHW.dtype))
            mean_BHW = mean_BMHW.gather(1, indicator_B1HW)[:, 0]
            log_scale_BHW = mixture.log_scales_BCMHW[:, j].gather(1, indicator_B1HW)[:, 0]
            x_BCHW[:, j] = self._nearest_level(mean_BHW + log_scale_BHW.exp() * logistic_noise[:, j].logit())
        return x_BCHW

    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        """Return (B, K, H, W): the mixture's masses of all levels of colour j."""
        mixture, j = self._mixture(theta), earlier_BjHW.shape[1]
        earlier_scaled = self.scale(earlier_BjHW, mixture.means_BCMHW.dtype)
        log_weights_BMHW = self._log_posterior_weights(mixture, earlier_BjHW)
        levels_K111 = torch.arange(self.levels, device=theta.device)[:, None, None, None]
        mean_BMHW, log_scale_BMHW = mixture.mean(earlier_scaled), mixture.log_scales_BCMHW[:, j]
        log_mass_BKMHW = self._log_mass(levels_K111, mean_BMHW[:, None], log_scale_BMHW[:, None])
        return (log_weights_BMHW[:, None] + log_mass_BKMHW).logsumexp(2).exp()

    def _log_posterior_weights(self, mixture: _Mixture, earlier_BjHW: Tensor) -> Tensor:
        """Return (B, M, H, W): the probability of each indicator for colour j; earlier colours inform a shared one."""
        j = earlier_BjHW.shape[1]
        if not self.is_joint:
            return mixture.logits_BGMHW[:, j].log_softmax(1)
        log_weights_BMHW = mixture.logits_BGMHW[:, 0]
        if j:
            log_weights_BMHW = log_weights_BMHW + self._log_masses(mixture, earlier_BjHW).sum(1)
        return log_weights_BMHW.log_softmax(1)

    def _log_masses(self, mixture: _Mixture, x_BjHW: Tensor) -> Tensor:
        """Return log masses (B, j, M, H, W) of the first j colours, each given those before it."""
        x_scaled, j = self.scale(x_BjHW, mixture.means_BCMHW.dtype), x_BjHW.shape[1]
        means_BjMHW = torch.stack([mixture.mean(x_scaled[:, :i]) for i in range(j)], dim=1)
        return self._log_mass(x_BjHW[:, :, None], means_BjMHW, mixture.log_scales_BCMHW[:, :j])

    def _mixture(self, theta: Tensor) -> _Mixture:
        theta, M = upcast(theta), self.mixtures
        if self.is_joint:
            sizes = [1, self.channels, self.channels, self.num_pairs]
            logits, means, log_scales, pairs = torch.unflatten(theta, 1, (sum(sizes), M)).split_with_sizes(sizes, dim=1)
            coefficients = pairs.tanh()
        else:
            logits, means, log_scales = torch.unflatten(theta, 2, (3, M)).unbind(2)
            coefficients = None
        colours = self.channels // self.tiles
        return _Mixture(logits, means, log_scales.clamp(min=MIN_LOG_SCALE), coefficients, colours)

    def _log_mass(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Return the log of a logistic's mass in the bin of level x; the two outer bins reach to infinity.

        With a and b the standardised ends of the bin, σ(a) − σ(b) = σ(a) σ(−b) (1 − e^−(a−b)): no difference of
        near numbers, in whichever tail x is.
        """
        half_bin = 1 / (self.levels - 1)
        inv_scale = (-log_scale).exp()
        centred = self.scale(x, mean.dtype) - mean
        log_below_upper = logsigmoid(inv_scale * (centred + half_bin))
        log_above_lower = logsigmoid(-inv_scale * (centred - half_bin))
        log_inner = log_below_upper + log_above_lower + _log1mexp(math.log(2 * half_bin) - log_scale)
        return torch.where(x == 0, log_below_upper, torch.where(x == self.levels - 1, log_above_lower, log_inner))

    def _nearest_level(self, y: Tensor) -> Tensor:
        """Return the level whose bin holds y, a point of the scaled line."""
        top = self.levels - 1
        return ((y + 1) * (top / 2)).round().clamp(0, top).long()


def _log1mexp(log_d: Tensor) -> Tensor:
    """Return log(1 − e^−d) for d = e^log_d > 0.

    Small d takes the series log d − d/2 + d²/24 (next term d⁴/2880), which stays finite, gradient and all, when d
    itself underflows: a very wide logistic.
    """
    d = log_d.exp()
    series = log_d - d / 2 + d.square() / 24
    direct = (-torch.expm1(-d.clamp(min=1e-3))).log()
    return torch.where(d < 1e-3, series, direct)
