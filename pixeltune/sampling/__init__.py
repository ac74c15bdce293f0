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
from pixeltune.models import DensityModel, eval_mode
from pixeltune.sampling.cached import ModelStepper, RowSampler, cached
from pixeltune.sampling.fixed_point import fixed_point
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.labels import checked_labels
from pixeltune.sampling.naive import naive
from pixeltune.sampling.speed import SPEED_BATCH, forecast, images_per_second

__all__ = [
    "METHODS",
    "SPEED_BATCH",
    "ModelStepper",
    "RowSampler",
    "cached",
    "fixed_point",
    "forecast",
    "images_per_second",
    "naive",
    "sample",
    "save_grid",
]

METHODS: dict[str, Callable[[DensityModel, Tensor, Tensor | None], Tensor]] = {
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
    noise. A latent is drawn from its prior. labels: a class for each image; None draws without labels.
    Raises ConfigError for an unknown method, or for labels that the model or n do not admit.
    """
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}, but got {method!r}")
    if n < 1:
        raise ConfigError(f"the number of samples must be at least 1, but got {n}")
    label_N = checked_labels(model, n, labels)
    generator = torch.Generator().manual_seed(seed)
    latents, noise = zip(*[(model.draw_latent(generator), model.noise(generator)) for _ in range(n)], strict=True)
    given = (label_N, torch.cat(latents), torch.cat(noise))
    batches = zip(*[torch.split(tensor, batch_size) for tensor in given], strict=True)
    with eval_mode(model), torch.inference_mode():
        images = [_sample_batch(model, METHODS[method], *batch) for batch in batches]
    return torch.cat(images)


def _sample_batch(
    model: DensityModel, method: Callable[..., Tensor], label_B: Tensor, z_BD: Tensor, noise_BNhw: Tensor
) -> Tensor:
    """Levels (B, C, H, W), uint8 on the CPU."""
    weight = next(model.parameters())
    s = model.features(weight.new_zeros(len(z_BD), *model.form.shape), label_B.to(weight.device), z_BD.to(weight))
    images_BCHW: Tensor = method(model, noise_BNhw.to(weight.device), s)
    return images_BCHW.to("cpu", torch.uint8)
