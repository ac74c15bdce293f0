"""DensityModel: a causal network and a likelihood, perhaps with labels and tiles, that is, exact nats of an image.

Legend of shapes: B batch, C colours, H×W pixels, P parameters of the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pixeltune.config import Causality, ImageForm, TrialConfig
from pixeltune.likelihoods import Likelihood, build_likelihood
from pixeltune.models.conditioning import NO_LABEL, build_conditioning, num_label_features
from pixeltune.models.gated import GatedPixelCNN
from pixeltune.models.pixelcnn import PixelCNN
from pixeltune.models.pixelcnnpp import PixelCNNPP
from pixeltune.models.split import Split
from pixeltune.models.weight_norm import initialising, is_initialised_by_data

NETWORKS: dict[str, type[nn.Module]] = {
    "pixelcnn": PixelCNN,
    "gated": GatedPixelCNN,
    "pixelcnnpp": PixelCNNPP,
}


class DensityModel(nn.Module):
    """p(x) = Π p(x_s | θ(earlier x)), s in the order of `order()`; all of it given the label, if it is conditional.

    network: images in [−1, 1] to flat parameters (B, C·P, H, W), or (B, P, H, W) if pixel-causal; where the image is
        split, its tiles stacked on channels to the parameters of all tiles.
    split: the tiles; one, unless `model.split` says otherwise.
    conditioning: labels to features that the network takes; None where `model.conditioning` is.
    likelihood: those parameters to nats; always run in float32, or float64 if the network is.
    is_bound: whether `log_prob` is only a lower bound.
    """

    is_bound: bool = False

    def __init__(self, network: nn.Module, likelihood: Likelihood, *, config: TrialConfig, form: ImageForm) -> None:
        super().__init__()
        self.network = network
        self.split = Split(config.model.split, likelihood.causality, coupled=config.model.coupled_tiles > 1)
        self.conditioning = build_conditioning(config.model, form)
        self.likelihood = likelihood
        self.config = config
        self.form = form

    @property
    def causality(self) -> Causality:
        """Whether θ is one a pixel or one a sub-pixel."""
        return self.likelihood.causality

    def parameters_of(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """θ of images in [−1, 1], in the likelihood's shape; differentiable in x, which is what the audit uses.

        label_B: classes, NO_LABEL where there is none; an unconditional model ignores them.
        """
        s = None if self.conditioning is None else self.conditioning(label_B, x_BCHW)
        theta: Tensor = self.network(self.split.stack(x_BCHW), s)
        return self.split.place(theta, self.likelihood.num_params)

    def scale(self, x_BCHW: Tensor) -> Tensor:
        """Integer levels to [−1, 1], in the network's dtype."""
        return self.likelihood.scale(x_BCHW, next(self.parameters()).dtype)

    def log_prob(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Nats (B,) of images of integer levels, given their labels; exact, or a lower bound if `is_bound`."""
        theta = self.parameters_of(self.scale(x_BCHW), label_B)
        with torch.autocast(theta.device.type, enabled=False):
            return self.likelihood.log_prob(theta, self.split.to_sites(x_BCHW))

    def loss(self, x_BCHW: Tensor, label_B: Tensor | None = None, step: int | None = None) -> Tensor:  # noqa: ARG002
        """What training minimises, nats (B,). step: of the optimiser, for losses that warm up."""
        return -self.log_prob(x_BCHW, self._dropped_out(label_B))

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None, step: int | None = None) -> Tensor:
        """The loss: DistributedDataParallel hooks into forward alone."""
        return self.loss(x_BCHW, label_B, step)

    @property
    def is_initialised_by_data(self) -> bool:
        """Whether `initialise` has something to do."""
        return is_initialised_by_data(self.network)

    def initialise(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> None:
        """Fit the initial weights to a first batch of integer levels, in the mode that the model is in."""
        with initialising(self.network), torch.autocast(x_BCHW.device.type, enabled=False):
            self.parameters_of(self.scale(x_BCHW), label_B)

    def order(self) -> Tensor:
        """(C, H, W) int64: the network call in which each sub-pixel is drawn; its θ depends on smaller calls only."""
        return self.split.order(*self.form.shape)

    def draw(self, theta: Tensor, noise_BNhw: Tensor) -> Tensor:
        """Levels (B, C, H, W) of every sub-pixel at once: a fixed function of θ and of noise as `noise` makes it."""
        return self.split.from_sites(self.likelihood.sample(theta, noise_BNhw))

    def noise(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """The uniforms (1, N, h, w) that draw one image: N a pixel, or an offset of coupled tiles."""
        height, width = self.split.to_sites(self.order()[None]).shape[-2:]
        return self.likelihood.noise(1, height, width, generator, dtype)

    def num_parameters(self) -> int:
        """Trainable numbers, those included that a colour mask silences."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _dropped_out(self, label_B: Tensor | None) -> Tensor | None:
        """In training, each label withheld with the probability `model.label_dropout`."""
        rate = self.config.model.label_dropout
        if label_B is None or not rate or not self.training:
            return label_B
        return label_B.where(torch.rand(label_B.shape, device=label_B.device) >= rate, NO_LABEL)


def build_model(config: TrialConfig, form: ImageForm | None = None) -> DensityModel:
    """The model that `config` describes, its initial weights fixed by `config.seed` alone.

    form: of the data; None reads it from the data. Raises ConfigError where model, likelihood and data do not fit.
    """
    if form is None:
        # Only here, so that a model whose form is known builds without any data code.
        from pixeltune.data import resolve

        form = resolve(config).data.form
    config.model.require_form(form)
    likelihood = build_likelihood(
        config.likelihood, form=form, causality=config.model.causality, coupled_tiles=config.model.coupled_tiles
    )
    with seeded(config.seed_for("init")):
        return assemble(config, form, likelihood, network_class=NETWORKS[config.model.family])


def assemble(
    config: TrialConfig, form: ImageForm, likelihood: Likelihood, *, network_class: type[nn.Module]
) -> DensityModel:
    """A network of this class, of the size that form, likelihood and labels ask for, with new weights."""
    network = network_class(
        config.model,
        in_channels=form.channels * config.model.split**2,
        num_params=likelihood.num_params * config.model.split**2 // config.model.coupled_tiles,
        label_features=num_label_features(config.model, form),
    )
    return DensityModel(network, likelihood, config=config, form=form)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off and batch norm frozen; afterwards the mode from before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The CPU's random numbers from `seed`; global state is untouched (`torch.manual_seed` would re-seed CUDA)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
