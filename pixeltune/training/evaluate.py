"""Exact evaluation: every image once, one batch shape, per-image nats added in image order in float64.

The number does not depend on the number of workers (equal with ==, because each batch is computed whole by one
worker, in the same shape and with the same neighbours), and only by rounding on the batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pixeltune.config import ImageForm
from pixeltune.data import ImageSet
from pixeltune.errors import ConfigError, DataError
from pixeltune.models import DensityModel, PixelVAE
from pixeltune.models.exact import exact_float32
from pixeltune.training.workers import Workers


@dataclass(frozen=True)
class Evaluation:
    """Per-image negative log-likelihoods of one split. nats_N: float64, in image order. form: of the images."""

    nats_N: np.ndarray
    form: ImageForm

    @property
    def nats(self) -> float:
        """Mean nats per image."""
        return math.fsum(self.nats_N) / len(self.nats_N)

    @property
    def bits_per_dim(self) -> float:
        """Mean bits per sub-pixel: nats / (C·H·W·ln 2)."""
        return self.nats / (self.form.dims * math.log(2))

    @property
    def standard_error(self) -> float:
        """Of bits_per_dim, over images."""
        spread = float(np.std(self.nats_N, ddof=1)) if len(self.nats_N) > 1 else math.nan
        return spread / math.sqrt(len(self.nats_N)) / (self.form.dims * math.log(2))


def evaluate(
    model: DensityModel,
    images: ImageSet,
    *,
    batch_size: int = 100,
    workers: Workers | None = None,
    importance: int | None = None,
) -> Evaluation:
    """-log p of every image of `images` under `model`, in eval mode and exact float32; the bound, where that is all.

    batch_size: images per network call; the last batch is filled up with copies that are computed and not counted.
    importance: draws of the importance-weighted bound, in place of the ELBO; ConfigError where the model is exact.
    """
    log_prob = model.log_prob if importance is None else partial(_bounded(model).importance_bound, samples=importance)
    workers = workers or Workers()
    device = next(model.parameters()).device
    nats_N = torch.zeros(len(images), dtype=torch.float64)
    was_training = model.training
    model.eval()
    with torch.no_grad(), exact_float32():
        for start in range(workers.rank * batch_size, len(images), workers.world * batch_size):
            stop = min(start + batch_size, len(images))
            rows = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
            x_BCHW = torch.from_numpy(_levels(images.pixels_NCHW[rows], model.form)).to(device)
            label_B = None if images.labels_N is None else torch.from_numpy(images.labels_N[rows]).to(device)
            nats_B = -log_prob(x_BCHW, label_B, torch.from_numpy(rows))
            nats_N[start:stop] = nats_B[: stop - start].double().cpu()
    model.train(was_training)
    return Evaluation(_gather(nats_N, workers, device), model.form)


def _bounded(model: DensityModel) -> PixelVAE:
    if not isinstance(model, PixelVAE):
        raise ConfigError(
            f"an importance-weighted bound needs a model with a latent, but family {model.config.model.family} has "
            "none: its likelihood is exact; leave `importance` away"
        )
    return model


def _levels(pixels_BCHW: np.ndarray, form: ImageForm) -> np.ndarray:
    """The pixels, refused where they are not levels of the model, as the grey originals of a dynamic draw are not."""
    if pixels_BCHW.shape[1:] != form.shape or int(pixels_BCHW.max()) >= form.levels:
        raise DataError(
            f"images must be {form.channels}×{form.height}×{form.width} of levels below {form.levels}, "
            f"but got shape {pixels_BCHW.shape[1:]} with level {int(pixels_BCHW.max())}"
        )
    return np.ascontiguousarray(pixels_BCHW)


def _gather(nats_N: torch.Tensor, workers: Workers, device: torch.device) -> np.ndarray:
    """Each image was computed by one worker and is zero elsewhere, so that adding is exact."""
    summed = workers.sum(nats_N.to(device) if workers.world > 1 else nats_N)
    return summed.cpu().numpy()
