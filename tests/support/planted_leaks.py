"""Networks and likelihoods with a planted leak, and sound ones that look alike, as a user's own could be written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pixeltune.config import Causality, ImageSpec, TrialConfig
from pixeltune.likelihoods import Categorical
from pixeltune.models import DensityModel
from pixeltune.models.conditioning import NO_LABEL
from pixeltune.models.gated import GatedPixelCNN
from tests.support.model_kinds import model_settings

EVAL_BATCH = 60
"""Images a network call in these tests' evaluations."""


def ahead(x_BCHW: Tensor) -> Tensor:
    """The pixel to the right of each, (B, 1, H, W): what no θ may see."""
    return x_BCHW.roll(-1, dims=3)[:, :1]


def behind(x_BCHW: Tensor) -> Tensor:
    """The pixel above each, zero in the first row: what every θ may see."""
    shifted = x_BCHW.roll(1, dims=2)[:, :1].clone()
    shifted[:, :, 0] = 0
    return shifted


class Planted(GatedPixelCNN):
    """A gated network, to whose θ `extra` is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_out: int = self.head[-1].out_channels
        self.calls = 0
        self.plant()

    def plant(self) -> None:
        """Add modules."""

    def extra(self, x: Tensor) -> Tensor:
        """Return what is added to every second parameter; nothing, if a class does not say otherwise."""
        return torch.zeros_like(x[:, :1])

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().forward(x_BCHW, s) + self.half * self.extra(x_BCHW)

    @property
    def half(self) -> Tensor:
        """Half of the parameters: a number added to all logits alike would change nothing."""
        weight = self.head[-1].weight
        return (torch.arange(self.num_out, device=weight.device) % 2 == 0).to(weight)[:, None, None]


# --- Gates that start at zero -----------------------------------------------------------------------------------------


class Seen(Planted):
    """What is behind the gate: a leak here, and the past in the sound counterparts."""

    look = staticmethod(ahead)


class ReZero(Seen):
    def plant(self) -> None:
        self.alpha = nn.Parameter(torch.zeros(()))

    def extra(self, x: Tensor) -> Tensor:
        return self.alpha * self.look(x)


class LayerScale(Seen):
    def plant(self) -> None:
        self.gamma = nn.Parameter(torch.zeros(self.num_out))

    def extra(self, x: Tensor) -> Tensor:
        return self.gamma[:, None, None] * self.look(x)


class BatchNormed(Seen):
    def plant(self) -> None:
        self.norm = nn.BatchNorm2d(1)
        nn.init.zeros_(self.norm.weight)

    def extra(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.look(x))
        return out


class GroupNormed(Seen):
    """Normalises over places, which leaks with any input."""

    look = staticmethod(behind)

    def plant(self) -> None:
        self.norm = nn.GroupNorm(1, 1)
        nn.init.zeros_(self.norm.weight)

    def extra(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.look(x))
        return out


class ZeroConv(Seen):
    def plant(self) -> None:
        self.out = nn.Conv2d(1, self.num_out, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def extra(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.look(x))
        return out


class ZeroWeightNorm(Seen):
    def plant(self) -> None:
        self.out = weight_norm(nn.Conv2d(1, self.num_out, 1))
        nn.init.zeros_(self.out.parametrizations.weight.original0)  # type: ignore[union-attr, arg-type]

    def extra(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.look(x))
        return out


class Attention(Seen):
    """One head over all pixels, behind a gate; the sound one masks what does not come before, in a buffer."""

    is_causal = False

    def plant(self) -> None:
        self.keys, self.values = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 1, 1)
        self.gate = nn.Parameter(torch.zeros(1))
        self.register_buffer("mask", torch.zeros(0, 0), persistent=False)

    def extra(self, x: Tensor) -> Tensor:
        num = x.shape[2] * x.shape[3]
        if len(self.mask) != num:
            self.mask = torch.ones(num, num).tril(0 if self.is_causal else num)
        # Each pixel has the one before it as its key, value and query: it must not see its own.
        before = nn.functional.pad(x[:, :1].flatten(2)[..., :-1], (1, 0)).unflatten(2, x.shape[2:])
        keys, values = self.keys(before).flatten(2), self.values(before).flatten(2)
        scores = (keys.transpose(1, 2) @ keys / 2).masked_fill(self.mask.to(x) == 0, float("-inf"))
        out = scores.softmax(2) @ values.transpose(1, 2)
        return self.gate * out.transpose(1, 2).unflatten(2, x.shape[2:])


class FarSigmoid(Seen):
    def plant(self) -> None:
        self.gate = nn.Parameter(torch.full((1,), -2000.0))

    def extra(self, x: Tensor) -> Tensor:
        return self.gate.sigmoid() * self.look(x)


class CausalAttention(Attention):
    is_causal = True


class PastReZero(ReZero):
    look = staticmethod(behind)


class PastBatchNormed(BatchNormed):
    look = staticmethod(behind)


class PastZeroWeightNorm(ZeroWeightNorm):
    look = staticmethod(behind)


class ZeroHead(Seen):
    """A sound network whose last layer starts at zero: at first θ depends on nothing."""

    def plant(self) -> None:
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)


class MaskedByBuffer(Seen):
    """A sound 3×3 convolution, whose mask is a buffer with zeros."""

    def plant(self) -> None:
        self.conv = nn.Conv2d(1, self.num_out, 3, padding=1)
        self.register_buffer("mask", torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]))

    def extra(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x[:, :1], self.conv.weight * self.mask.to(x), self.conv.bias, padding=1)


class Dropping(Seen):
    """A sound network with dropout on the past."""

    def extra(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(behind(x), 0.5, self.training)


class ChannelNormed(Seen):
    """A sound network that normalises over the features of a pixel."""

    def plant(self) -> None:
        self.spread, self.norm = nn.Conv2d(1, self.num_out, 1), nn.LayerNorm(self.num_out)
        nn.init.zeros_(self.norm.weight)

    def extra(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.spread(behind(x)).movedim(1, 3)).movedim(3, 1)
        return features


# --- Leaks under a condition ------------------------------------------------------------------------------------------


class OneClass(Planted):
    """Labels come as a one-hot of 4 classes."""

    label = 2

    def forward(self, x_BCHW: Tensor, s: Tensor | None = None) -> Tensor:
        assert s is not None
        is_here = s[:, self.label, 0, 0] if self.label != NO_LABEL else (s.sum((1, 2, 3)) == 0).to(x_BCHW)
        theta: Tensor = GatedPixelCNN.forward(self, x_BCHW, s)
        return theta + self.half * is_here[:, None, None, None] * ahead(x_BCHW)


class LastClass(OneClass):
    label = 3


class WithoutLabel(OneClass):
    label = NO_LABEL


class OneSite(Planted):
    """θ of the pixel at row 3, column 2 sees that pixel itself."""

    def extra(self, x: Tensor) -> Tensor:
        at = torch.zeros_like(x[:, :1])
        at[:, :, 3, 2] = x[:, 0, 3, 2, None]
        return at


class FarSite(Planted):
    """The same beyond the narrow twin's size, in the last row alone."""

    def extra(self, x: Tensor) -> Tensor:
        at = torch.zeros_like(x[:, :1])
        if x.shape[2] > 8:
            at[:, :, 9, 2] = x[:, 0, 9, 2, None]
        return at


class Saturated(Planted):
    """Sees the next pixel where it is at an end of the scale."""

    end = 1.0

    def extra(self, x: Tensor) -> Tensor:
        return (ahead(x) == self.end).to(x)


class SaturatedLow(Saturated):
    end = -1.0


class EvalOnly(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :1]) if self.training else ahead(x)


class WithoutGradients(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :1]) if torch.is_grad_enabled() else ahead(x)


class BatchMean(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return x[:, :1].mean(0, keepdim=True).expand(len(x), -1, -1, -1)


class Float32Only(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return ahead(x) if x.dtype == torch.float32 else torch.zeros_like(x[:, :1])


class FullBatch(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return ahead(x) * (len(x) == EVAL_BATCH)


class OnePlace(Planted):
    """Only the image at place 41 of a batch."""

    def extra(self, x: Tensor) -> Tensor:
        is_there = (torch.arange(len(x), device=x.device) == 41).to(x)
        return is_there[:, None, None, None] * ahead(x)


class AfterManyCalls(Planted):
    def extra(self, x: Tensor) -> Tensor:
        return ahead(x) * (self.calls > 1000)


class FilledBuffer(Planted):
    """A buffer of zeros that training fills."""

    def plant(self) -> None:
        self.register_buffer("gate", torch.zeros(1))

    def extra(self, x: Tensor) -> Tensor:
        if self.training:
            self.gate = self.gate + 1
        return self.gate.to(x) * ahead(x)


class EmaBuffer(Planted):
    """A mask of places that follows the images seen in training."""

    def plant(self) -> None:
        self.register_buffer("seen", torch.zeros(1))

    def extra(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().abs().mean()
        return self.seen.to(x) * ahead(x)


class NegativeGate(Planted):
    """A gate that only opens below zero, where the narrow twin never is."""

    def plant(self) -> None:
        self.gate = nn.Parameter(torch.full((1,), 0.5))

    def extra(self, x: Tensor) -> Tensor:
        return (-self.gate).relu() * ahead(x)


class Window(Planted):
    """Acts while it is being evaluated, and no longer when it is checked."""

    window = range(1)

    def extra(self, x: Tensor) -> Tensor:
        return 3 * ahead(x) * (self.calls in self.window)


# --- Likelihoods ------------------------------------------------------------------------------------------------------


class MeanOverPixels(Categorical):
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        return super().log_prob(theta, x_BCHW) / (x_BCHW.shape[2] * x_BCHW.shape[3])


class Neighbour(Categorical):
    """Scores each pixel with logits that have seen the pixel above."""

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        above = x_BCHW.roll(1, 2)[:, 0].to(theta) * (1 if x_BCHW.shape[2] > 1 else 0)
        moved = theta.clone()
        (moved[:, 0] if self.is_joint else moved[:, 0, 0]).add_(above)
        return super().log_prob(moved, x_BCHW)


class NeighbourInTable(Categorical):
    """The same in its tables too: it sums to one, but is no function of θ and the pixel's own colours."""

    def _logits(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        logits_BKHW = super()._logits(theta, earlier_BjHW)
        if earlier_BjHW.shape[1]:
            bonus = earlier_BjHW[:, 0].to(theta).roll(1, 2) * (earlier_BjHW.shape[3] > 1)
            logits_BKHW = torch.cat([logits_BKHW[:, :1] + bonus[:, None], logits_BKHW[:, 1:]], 1)
        return logits_BKHW


class BatchMixing(Categorical):
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        nats_B = super().log_prob(theta, x_BCHW)
        return nats_B if len(x_BCHW) != 3 else nats_B.mean().expand(len(nats_B))


class BatchInTable(Categorical):
    def _logits(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        logits_BKHW = super()._logits(theta, earlier_BjHW)
        return logits_BKHW + 1e-3 * logits_BKHW.mean(0, keepdim=True) * (len(theta) == 3)


class GenerousInFloat32(Categorical):
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        return super().log_prob(theta, x_BCHW) * (0.9 if theta.dtype == torch.float32 else 1)


class GenerousAtTheEnds(Categorical):
    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        is_all_ends = ((x_BCHW == 0) | (x_BCHW == self.levels - 1)).flatten(1).all(1)
        return super().log_prob(theta, x_BCHW) + 0.5 * is_all_ends


class NegativeMass(Categorical):
    """Sums to one with probabilities above one and below zero."""

    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        probs_BKHW = super().table(theta, earlier_BjHW)
        return probs_BKHW + 2 * (probs_BKHW - 1 / self.levels)


# --- Models -----------------------------------------------------------------------------------------------------------


def planted_model(
    network: type[nn.Module] = GatedPixelCNN,
    likelihood: type[Categorical] = Categorical,
    *,
    shape: tuple[int, int, int] = (1, 7, 6),
    levels: int = 4,
    **model: Any,
) -> DensityModel:
    """A small gated model of images of 4 classes, around this network and this likelihood."""
    settings = model_settings("gated", **{"channels": 6, "layers": 2, "kernel_size": 3, "head_channels": 6} | model)
    sections = {
        "data": {"name": "digits"},
        "model": settings,
        "likelihood": {"name": "categorical"},
        "train": {"eval_batch_size": EVAL_BATCH},
    }
    config, form = TrialConfig.build(sections), ImageSpec(*shape, levels=levels, num_classes=4)
    built = likelihood(channels=shape[0], levels=levels, causality=Causality(config.model.causality))
    torch.manual_seed(0)
    made = network(
        config.model,
        in_channels=shape[0],
        num_params=built.num_params,
        condition_features=4 if config.model.conditioning == "bias" else 0,
    )
    return DensityModel(made, built, config=config, form=form)


def trained(model: DensityModel, steps: int = 5) -> DensityModel:
    """The model after some steps on images in which each pixel equals the one to its left."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        x_BCHW = torch.randint(model.form.levels, (20, *model.form.shape), generator=generator)
        x_BCHW[..., :-1] = x_BCHW[..., 1:].clone()
        label_B = torch.arange(20) % 5 - 1
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(model.loss(x_BCHW, label_B).mean(), weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(0.3 * (torch.zeros(()) if gradient is None else gradient))
    return model.eval()
