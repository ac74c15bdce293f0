"""Sampling: new images of a model, by a named method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.models import DensityModel, eval_mode
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.naive import draw, naive

__all__ = ["METHODS", "draw", "naive", "sample", "save_grid"]

METHODS: dict[str, Callable[[DensityModel, Tensor], Tensor]] = {
    "naive": naive,
}


def sample(model: DensityModel, n: int, *, seed: int = 0, method: str = "naive", batch_size: int = 256) -> Tensor:
    """Draw n images (n, C, H, W), uint8 levels on the CPU.

    Image i is fixed by the weights, the seed and i: neither n, nor batch_size, nor the device changes its noise.
    Raises ConfigError for an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(f"`method` must be one of {', '.join(METHODS)}, but got {method!r}")
    if n < 1:
        raise ConfigError(f"the number of samples must be at least 1, but got {n}")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = [model.likelihood.noise(1, model.form.height, model.form.width, generator) for _ in range(n)]
    with eval_mode(model), torch.no_grad():
        batches = [METHODS[method](model, batch.to(device)) for batch in torch.split(torch.cat(noise), batch_size)]
    return torch.cat(batches).to("cpu", torch.uint8)
