"""DensityModel: a causal network and a likelihood, perhaps with labels and tiles, that is, exact nats of an image.

Legend of shapes: B batch, C colours, H×W pixels (h×w of a tile), P parameters of the likelihood, D latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pixeltune.config import Causality, ImageSpec, Layout, TrialConfig
from pixeltune.likelihoods import Likelihood
from pixeltune.models.blocks import LayerBlock
from pixeltune.models.conditioning import NO_LABEL, build_conditioning
from pixeltune.models.inputs import require_labels, require_level_type, require_levels
from pixeltune.models.split import Split
from pixeltune.models.weight_norm import initialising, is_initialised_by_data


class _Nats(LayerBlock):
    """The likelihood as a block: a mixture keeps many times the size of its θ, and consists of small operations."""

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self._likelihood = likelihood

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return nats (B,)."""
        with torch.autocast(theta.device.type, enabled=False):
            return self._likelihood.log_prob(theta, x)


class DensityModel(nn.Module):
    """p(x) = Π p(x_s | θ(earlier x)), s in the order of `order()`; all of it given the label, if it is conditional.

    network: images in [−1, 1] to flat parameters (B, C·P, H, W), or (B, P, H, W) if pixel-causal; where the image is
        split, its tiles stacked on channels to the parameters of all tiles.
    split: the tiles; one, unless `model.split` says otherwise.
    conditioning: labels to features that the network takes; None where `model.conditioning` is.
    likelihood: those parameters to nats; always run in float32, or float64 if the network is.
    is_bound: whether `log_prob` is only a lower bound.
    latent_dim: D, numbers in the latent z; 0 without one.
    layout: of the network's features in memory, which follow the image's. It changes θ by rounding alone.
    """

    is_bound: bool = False
    latent_dim: int = 0
    layout: Layout = "channels_first"

    def __init__(self, network: nn.Module, likelihood: Likelihood, *, config: TrialConfig, form: ImageSpec) -> None:
        super().__init__()
        self.network = network
        self.split = Split(config.model.split, likelihood.causality, coupled=config.model.coupled_tiles > 1)
        self.conditioning = build_conditioning(config.model, form)
        self.likelihood = likelihood
        self._nats = _Nats(likelihood)
        self.config = config
        self.form = form

    @property
    def causality(self) -> Causality:
        """Return whether there is one θ per pixel or one per sub-pixel."""
        return self.likelihood.causality

    def parameters_of(self, x_BCHW: Tensor, label_B: Tensor | None = None, z_BD: Tensor | None = None) -> Tensor:
        """Return θ of images in [−1, 1], in the likelihood's shape; differentiable in x, which the audit uses.

        Args:
            x_BCHW: Images in [−1, 1].
            label_B: Classes (B,), NO_LABEL where there is none; an unconditional model ignores them.
            z_BD: The latent, if the model has one; None fixes it.
        """
        return self.parameters_given(x_BCHW, self.features(x_BCHW, label_B, z_BD))

    def parameters_given(self, x_BCHW: Tensor, s: Tensor | None) -> Tensor:
        """Return θ of images, in the likelihood's shape.

        Args:
            x_BCHW: Images in [−1, 1].
            s: The `features` of label and latent; None for an unconditional model.
        """
        stacked = self.split.stack(x_BCHW)
        theta: Tensor = self.network(_channels_last(stacked) if self.layout == "channels_last" else stacked, s)
        return self.split.place(theta, self.likelihood.num_params)

    def features(
        self,
        x_BCHW: Tensor,
        label_B: Tensor | None = None,
        z_BD: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor | None:
        """Return the features that condition each layer, (B, ·, 1, 1) or (B, ·, h, w); None if nothing conditions.

        Args:
            x_BCHW: Images, which give only size and dtype.
            label_B: Classes (B,), NO_LABEL where there is none; an unconditional model ignores them.
            z_BD: The latent, if the model has one.
        """
        return None if self.conditioning is None else self.conditioning(label_B, x_BCHW)

    def scale(self, x_BCHW: Tensor) -> Tensor:
        """Scale images to [−1, 1], in the network's dtype.

        Args:
            x_BCHW: Integer levels 0 to K-1.
        """
        return self.likelihood.scale(x_BCHW, next(self.parameters()).dtype)

    def log_prob(
        self,
        x_BCHW: Tensor,
        label_B: Tensor | None = None,
        index_B: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return log p of images given their labels; a lower bound if `is_bound`.

        Args:
            x_BCHW: Integer levels 0 to K-1.
            label_B: Classes, NO_LABEL where there is none; an unconditional model ignores them.
            index_B: The place of each image in its split, which with the seed fixes the noise of a bound; None counts
                from 0. An exact likelihood has no noise.

        Returns:
            Nats (B,), float32, or float64 if the model is.

        Raises:
            DataError: The images are not integers, of another shape or out of range.
            ConfigError: The labels are not one class an image.
        """
        self._require_inputs(x_BCHW, label_B)
        return self.log_prob_given(x_BCHW, label_B)

    def log_prob_given(self, x_BCHW: Tensor, label_B: Tensor | None = None, z_BD: Tensor | None = None) -> Tensor:
        """Return exact nats (B,) of images given labels and latent.

        Args:
            x_BCHW: Integer levels 0 to K-1; their range is not checked.
            label_B: Classes (B,), NO_LABEL where there is none; an unconditional model ignores them.
            z_BD: The latent, if the model has one; None fixes it.
        """
        require_level_type(x_BCHW, self.form)
        theta = self.parameters_of(self.scale(x_BCHW), label_B, z_BD)
        nats_B: Tensor = self._nats(theta, self.split.to_sites(x_BCHW))
        return nats_B

    def loss(
        self,
        x_BCHW: Tensor,
        label_B: Tensor | None = None,
        step: int | None = None,
        index_B: Tensor | None = None,
    ) -> Tensor:
        """Return the training loss, nats (B,).

        Args:
            x_BCHW: Integer levels 0 to K-1.
            label_B: Classes, as for `log_prob`; in training, each is withheld with `model.label_dropout`.
            step: Of the optimiser, for losses that warm up.
            index_B: The place of each image in the stream of training images, which with the seed fixes the noise of
                a bound.

        Raises:
            DataError: The images are not integers, of another shape or out of range.
            ConfigError: The labels are not one class an image.
        """
        self._require_inputs(x_BCHW, label_B)
        return self.forward(x_BCHW, label_B, step, index_B)

    def forward(
        self,
        x_BCHW: Tensor,
        label_B: Tensor | None = None,
        step: int | None = None,  # noqa: ARG002
        index_B: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the loss of a training batch, whose range was checked when the data was loaded.

        DistributedDataParallel hooks into forward alone, and checking levels would wait for the GPU in each step.

        Args:
            x_BCHW: Integer levels 0 to K-1; their range is not checked.
            label_B: As for `loss`.
            step: As for `loss`.
            index_B: As for `loss`.

        Returns:
            Nats (B,).
        """
        return -self.log_prob_given(x_BCHW, self._dropped_out(label_B))

    def _require_inputs(self, x_BCHW: Tensor, label_B: Tensor | None) -> None:
        require_levels(x_BCHW, self.form)
        if label_B is not None and self.conditioning is not None:
            require_labels(label_B, len(x_BCHW), self.conditioning.num_classes)

    @property
    def is_initialised_by_data(self) -> bool:
        """Return whether the first batch sets initial weights."""
        return is_initialised_by_data(self.network)

    def initialise(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> None:
        """Fit the initial weights to a first batch, in the mode that the model is in.

        Args:
            x_BCHW: Integer levels 0 to K-1.
            label_B: Classes (B,), NO_LABEL where there is none; an unconditional model ignores them.
        """
        require_level_type(x_BCHW, self.form)
        with initialising(self.network), torch.autocast(x_BCHW.device.type, enabled=False):
            self.parameters_of(self.scale(x_BCHW), label_B)

    def order(self) -> Tensor:
        """Return the network call that draws each sub-pixel, (C, H, W) int64; its θ depends on earlier calls only."""
        return self.split.order(*self.form.shape)

    def draw(self, theta: Tensor, noise_BNhw: Tensor, temperature: float = 1.0) -> Tensor:
        """Return levels (B, C, H, W) of all sub-pixels at once, a fixed function of θ and noise.

        Args:
            theta: θ as `parameters_of` returns it.
            noise_BNhw: Uniforms as `noise` returns them.
            temperature: As for `Likelihood.sample`.
        """
        return self.split.from_sites(self.likelihood.sample(theta, noise_BNhw, temperature))

    def draw_latent(self, generator: torch.Generator) -> Tensor:
        """Return z (1, D) from its prior, N(0, I).

        Args:
            generator: The source of randomness, on the CPU.
        """
        return torch.randn(1, self.latent_dim, generator=generator)

    def noise(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the uniforms (1, N, h, w) that draw one image: N per pixel, or per offset of coupled tiles.

        Args:
            generator: The source of randomness, on the CPU.
            dtype: Of the uniforms.
        """
        sites = self.split.site_shape(self.form.height, self.form.width)
        return self.likelihood.noise(1, *sites, generator, dtype)

    def num_parameters(self) -> int:
        """Return the number of trainable parameters, including weights zeroed by colour masks."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _dropped_out(self, label_B: Tensor | None) -> Tensor | None:
        """Withhold each label with the probability `model.label_dropout` in training."""
        rate = self.config.model.label_dropout
        if label_B is None or not rate or not self.training:
            return label_B
        return label_B.where(torch.rand(label_B.shape, device=label_B.device) >= rate, NO_LABEL)


def _channels_last(x_BCHW: Tensor) -> Tensor:
    """Return x in the order (B, H, W, C), with those strides even if one channel makes both orders the same."""
    return x_BCHW.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout off and freeze batch norm; afterwards restore the mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
