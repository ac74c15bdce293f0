"""Sampling: new images of a model, by a named method. All methods draw the same images from the same noise.

`naive` is the definition, one network pass a step of `model.order()`. `cached` computes each feature of each pixel
once. `fixed_point` draws whole images again and again until they stay. Rounding differs between them: in float64 the
images are the same, in float32 a level on the edge between two may be the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.models import NO_LABEL, DensityModel, eval_mode
from pixeltune.sampling.cached import ModelStepper, RowSampler, cached
from pixeltune.sampling.fixed_point import fixed_point
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.naive import draw, naive

__all__ = ["METHODS", "ModelStepper", "RowSampler", "cached", "draw", "fixed_point", "naive", "sample", "save_grid"]

METHODS: dict[str, Callable[[DensityModel, Tensor, Tensor], Tensor]] = {
    "naive": naive,
    "cached": cached,
    "fixed_point": fixed_point,
}


def sample(
    model: DensityModel,
    n: int,
    *,
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    method: str = "cached",
    batch_size: int = 256,
) -> Tensor:
    """Draw n images (n, C, H, W), uint8 levels on the CPU.

    Image i is fixed by the weights, the seed, i and its label: neither n, nor batch_size, nor the device changes its
    noise. labels: a class for each image; None draws without labels.
    Raises ConfigError for an unknown method, or for labels that the model or n do not admit.
    """
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}, but got {method!r}")
    if n < 1:
        raise ConfigError(f"the number of samples must be at least 1, but got {n}")
    label_N = _checked_labels(model, n, labels)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = [model.likelihood.noise(1, model.form.height, model.form.width, generator) for _ in range(n)]
    batches = zip(torch.split(torch.cat(noise), batch_size), torch.split(label_N, batch_size), strict=True)
    with eval_mode(model), torch.inference_mode():
        images = [METHODS[method](model, noise_BNHW.to(device), label_B.to(device)) for noise_BNHW, label_B in batches]
    return torch.cat(images).to("cpu", torch.uint8)


def _checked_labels(model: DensityModel, n: int, labels: Sequence[int] | Tensor | None) -> Tensor:
    """A class or NO_LABEL for each of n images."""
    if labels is None:
        return torch.full((n,), NO_LABEL)
    if model.conditioning is None:
        raise ConfigError("`labels` need a model with a model.conditioning of bias or map, but it has none")
    label_N, num_classes = torch.as_tensor(labels, dtype=torch.int64).cpu(), model.conditioning.num_classes
    if label_N.shape != (n,):
        raise ConfigError(f"`labels` must be {n}, one an image, but got shape {tuple(label_N.shape)}")
    if not ((label_N >= 0) & (label_N < num_classes) | (label_N == NO_LABEL)).all():
        raise ConfigError(f"`labels` must lie in 0..{num_classes - 1}, but got {label_N.tolist()}")
    return label_N
