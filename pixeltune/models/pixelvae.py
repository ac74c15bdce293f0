"""PixelVAE (Gulrajani et al. 2016, arXiv 1611.05013), one level: a causal decoder conditioned on a latent z.

The encoder gives q(z|x), a diagonal Gaussian; the prior of z is N(0, I); the decoder p(x|z) is a causal network, which
takes features of z in every layer as it takes those of a label: z itself, the same at all pixels, or maps up-sampled
from it. `log_prob` is the ELBO, E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)), with one draw of z per image.

Differs from the paper: maps reach every layer of the decoder rather than its first, and the number of resolutions
follows from the image, at 28×28 the paper's.

Legend of shapes: B batch, C colours, H×W pixels (h×w of a tile), D latents, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltune.config import ImageSpec, PixelVAEConfig, TrialConfig
from pixeltune.likelihoods import Likelihood
from pixeltune.models.density import DensityModel
from pixeltune.models.inputs import require_level_type

COARSEST = 4
"""Side at which encoder and up-sampling meet their linear layers."""


@dataclass(frozen=True)
class Posterior:
    """The posterior q(z|x) of each image: a Gaussian of independent latents. log_variance: natural log of σ²."""

    mean_BD: Tensor
    log_variance_BD: Tensor

    def draw(self, noise_BD: Tensor) -> Tensor:
        """Return z (B, D) of standard normal noise."""
        return self.mean_BD + (0.5 * self.log_variance_BD).exp() * noise_BD

    def kl(self) -> Tensor:
        """Return KL(q ‖ N(0, I)) of each latent, (B, D) nats."""
        return 0.5 * (self.mean_BD.square() + self.log_variance_BD.exp() - 1 - self.log_variance_BD)

    def log_prior_ratio(self, noise_BD: Tensor) -> Tensor:
        """Return log p(z) − log q(z|x) at the z that `draw` makes of the noise, (B,) nats."""
        z_BD = self.draw(noise_BD)
        return 0.5 * (noise_BD.square() + self.log_variance_BD - z_BD.square()).sum(1)


class PixelVAE(DensityModel):
    """A latent z on top of a DensityModel; its `log_prob` is a lower bound."""

    is_bound = True

    def __init__(self, network: nn.Module, likelihood: Likelihood, *, config: TrialConfig, form: ImageSpec) -> None:
        super().__init__(network, likelihood, config=config, form=form)
        model = self._settings
        self.latent_dim = model.latent_dim
        self.encoder = Encoder(form, model.encoder_channels, model.latent_dim)
        self.upsampling: UpSampledLatent | None = None
        if model.latent_conditioning == "map":
            self.upsampling = UpSampledLatent(
                model.latent_dim, model.channels, form.height // model.split, form.width // model.split
            )

    def features(self, x_BCHW: Tensor, label_B: Tensor | None = None, z_BD: Tensor | None = None) -> Tensor:
        """Return features of a label, then of z, (B, ·, 1, 1) or (B, ·, h, w); z is 0, its prior mean, if None."""
        if z_BD is None:
            z_BD = x_BCHW.new_zeros(len(x_BCHW), self.latent_dim)
        z_BDhw = z_BD[:, :, None, None] if self.upsampling is None else self.upsampling(z_BD)
        label = super().features(x_BCHW, label_B)
        if label is None:
            return z_BDhw
        size = torch.broadcast_shapes(label.shape[-2:], z_BDhw.shape[-2:])
        return torch.cat([label.expand(-1, -1, *size), z_BDhw.expand(-1, -1, *size)], dim=1)

    def log_prob(self, x_BCHW: Tensor, label_B: Tensor | None = None, index_B: Tensor | None = None) -> Tensor:
        """Return the ELBO, nats (B,), the KL in closed form; z is drawn with noise fixed by (`config.seed`, index)."""
        self._require_inputs(x_BCHW, label_B)
        posterior = self.posterior(x_BCHW)
        z_BD = posterior.draw(next(self._noise(x_BCHW, index_B)))
        return self.log_prob_given(x_BCHW, label_B, z_BD) - posterior.kl().sum(1)

    def importance_bound(
        self, x_BCHW: Tensor, label_B: Tensor | None = None, index_B: Tensor | None = None, *, samples: int
    ) -> Tensor:
        """Return log 1/k Σ p(x|z_i) p(z_i) / q(z_i|x) over k draws, a lower bound of log p(x).

        Between the ELBO and log p(x) in expectation, and rising with k. The first draw is that of `log_prob`.

        Args:
            x_BCHW: Integer levels 0 to K-1.
            label_B: Classes, NO_LABEL where there is none.
            index_B: Index of each image in its split, which with the seed fixes the noise; None counts from 0.
            samples: k, the draws of z an image.

        Returns:
            Nats (B,).

        Raises:
            DataError: The images are not integers, of another shape or out of range.
            ConfigError: The labels are not one class an image.

        References:
            Burda et al. 2016, arXiv 1509.00519.
        """
        self._require_inputs(x_BCHW, label_B)
        posterior, noise = self.posterior(x_BCHW), self._noise(x_BCHW, index_B)
        log_weights_kB = [
            self.log_prob_given(x_BCHW, label_B, posterior.draw(noise_BD)) + posterior.log_prior_ratio(noise_BD)
            for noise_BD, _ in zip(noise, range(samples), strict=False)
        ]
        return torch.stack(log_weights_kB).logsumexp(0) - math.log(samples)

    def forward(
        self,
        x_BCHW: Tensor,
        label_B: Tensor | None = None,
        step: int | None = None,
        index_B: Tensor | None = None,
    ) -> Tensor:
        """Return −E_q[log p(x|z)] + min(1, step / `model.kl_warmup`) · Σ max(`model.free_nats`, KL of a latent).

        The free nats (free bits: Kingma et al. 2016, arXiv 1606.04934, C.8) are granted image by image rather than to
        the mean of a batch, so that several workers train as one would. step None: the full weight.
        """
        posterior = self.posterior(x_BCHW)
        z_BD = posterior.draw(next(self._noise(x_BCHW, index_B)))
        kl_B = posterior.kl().clamp(min=self._settings.free_nats).sum(1)
        warmup = self._settings.kl_warmup
        weight = 1.0 if step is None or not warmup else min(1.0, step / warmup)
        return weight * kl_B - self.log_prob_given(x_BCHW, self._dropped_out(label_B), z_BD)

    def posterior(self, x_BCHW: Tensor) -> Posterior:
        """Return q(z|x) of integer levels, in float32, or float64 if the network is; ranges are not checked."""
        require_level_type(x_BCHW, self.form)
        mean_BD, log_variance_BD = self.encoder(self.scale(x_BCHW)).chunk(2, dim=1)
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        return Posterior(mean_BD.to(dtype), log_variance_BD.to(dtype))

    @property
    def _settings(self) -> PixelVAEConfig:
        assert isinstance(self.config.model, PixelVAEConfig)
        return self.config.model

    def _noise(self, x_BCHW: Tensor, index_B: Tensor | None) -> Iterator[Tensor]:
        """Yield standard normals (B, D), draw after draw: those of an image are fixed by seed and index alone."""
        indices = range(len(x_BCHW)) if index_B is None else index_B.tolist()
        generators = [torch.Generator().manual_seed(self.config.seed_for("latent", index)) for index in indices]
        like = next(self.parameters())
        while True:
            noise = [torch.randn(self.latent_dim, generator=generator) for generator in generators]
            yield torch.stack(noise).to(like.device, torch.promote_types(like.dtype, torch.float32))


class Encoder(nn.Module):
    """Images in [−1, 1] to means and log variances of z: 3×3 convolutions with ReLU, then a linear layer.

    Two a resolution, the second at stride 2, until no side is above COARSEST, and two more there; twice `features` from
    the second resolution on. At 28×28 the paper's: 32, 32 s2, 32, 64 s2, 64, 64 s2, 64, 64.
    """

    def __init__(self, form: ImageSpec, features: int, latent_dim: int) -> None:
        super().__init__()
        *finer, (height, width) = _halvings(form.height, form.width)
        layers, channels = list[nn.Module](), form.channels

        def convolution(out_channels: int, stride: int = 1) -> None:
            nonlocal channels
            layers.extend([nn.Conv2d(channels, out_channels, 3, stride, padding=1), nn.ReLU()])
            channels = out_channels

        for resolution in range(len(finer)):
            convolution(features if resolution < 2 else 2 * features)
            convolution(2 * features if resolution else features, stride=2)
        convolution(2 * features)
        convolution(2 * features)
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(channels * height * width, 2 * latent_dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return mean and log variance (B, 2·D)."""
        parameters_BE: Tensor = self.out(self.layers(x_BCHW).flatten(1))
        return parameters_BE


class UpSampledLatent(nn.Module):
    """Latents z to F maps of the decoder's size: a linear layer to COARSEST, then transposed 4×4 convolutions."""

    def __init__(self, latent_dim: int, features: int, height: int, width: int) -> None:
        super().__init__()
        self.sizes = _halvings(height, width)[::-1]
        self.coarsest = nn.Linear(latent_dim, features * math.prod(self.sizes[0]))
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(features, features, 4, stride=2, padding=1) for _ in self.sizes[1:]
        )

    def forward(self, z_BD: Tensor) -> Tensor:
        """Return maps (B, F, h, w)."""
        maps_BFhw: Tensor = F.relu(self.coarsest(z_BD).unflatten(1, (-1, *self.sizes[0])))
        for doubling, (height, width) in zip(self.doublings, self.sizes[1:], strict=True):
            maps_BFhw = F.relu(doubling(maps_BFhw)[..., :height, :width])
        return maps_BFhw


def _halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Return the size, and its halves rounded up, until no side is above COARSEST."""
    sizes = [(height, width)]
    while max(sizes[-1]) > COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes
