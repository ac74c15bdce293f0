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

from pixeltune.config import ImageSpec
from pixeltune.data import ImageSet
from pixeltune.errors import ConfigError, DataError
from pixeltune.models import DensityModel, PixelVAE, eval_mode
from pixeltune.models.exact import exact_float32
from pixeltune.training.workers import Workers


@dataclass(frozen=True)
class Evaluation:
    """Per-image negative log-likelihoods of one split.

    Args:
        nats_N: −log p of each image (N,), float64, in image order.
        form: The form of the images.
    """

    nats_N: np.ndarray
    form: ImageSpec

    @property
    def nats(self) -> float:
        """Return the mean nats per image."""
        return math.fsum(self.nats_N) / len(self.nats_N)

    @property
    def bits_per_dim(self) -> float:
        """Return the mean bits per sub-pixel: nats / (C·H·W·ln 2)."""
        return self.nats / (self.form.dims * math.log(2))

    @property
    def standard_error(self) -> float:
        """Return the standard error of bits_per_dim, over images."""
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
    """Return -log p of every image under `model`, in eval mode and exact float32; the bound, where that is all.

    Args:
        model: Any model.
        images: Integer levels 0 to K-1 of the model's form, with a label an image or none.
        batch_size: Images per network call; the last batch is filled up with copies that are computed and not counted.
        workers: Processes that share the work; None for this one alone.
        importance: Draws of the importance-weighted bound (Burda et al. 2016, arXiv 1509.00519), in place of the ELBO.

    Returns:
        −log p of each image in nats, float64, in image order, with their mean, bits/dim and standard error. Where
        `model.is_bound`, the negative ELBO or importance-weighted bound, which is at least −log p in expectation.

    Raises:
        DataError: The images are not levels of the model, as values in [0, 1] are not.
        ConfigError: Labels are not classes of the model, or `importance` is given for an exact model.
    """
    log_prob = model.log_prob if importance is None else partial(_bounded(model).importance_bound, samples=importance)
    workers = workers or Workers()
    device = next(model.parameters()).device
    _require_labels(images)
    nats_N = torch.zeros(len(images), dtype=torch.float64)
    with eval_mode(model), torch.no_grad(), exact_float32():
        for start in range(workers.rank * batch_size, len(images), workers.world * batch_size):
            stop = min(start + batch_size, len(images))
            rows = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
            x_BCHW = torch.from_numpy(np.ascontiguousarray(images.pixels_NCHW[rows])).to(device)
            label_B = None if images.labels_N is None else torch.from_numpy(images.labels_N[rows]).to(device)
            nats_B = -log_prob(x_BCHW, label_B, torch.from_numpy(rows))
            nats_N[start:stop] = nats_B[: stop - start].double().cpu()
    return Evaluation(_gather(nats_N, workers, device), model.form)


def _bounded(model: DensityModel) -> PixelVAE:
    if not isinstance(model, PixelVAE):
        raise ConfigError(
            f"an importance-weighted bound needs a model with a latent, but family {model.config.model.family} has "
            "none: its likelihood is exact; leave out `importance`"
        )
    return model


def _require_labels(images: ImageSet) -> None:
    if images.labels_N is not None and len(images.labels_N) != len(images):
        raise DataError(
            f"labels must be one an image, but got {len(images.labels_N):,} labels of {len(images):,} images; "
            "give both of the same split, or no labels"
        )


def _gather(nats_N: torch.Tensor, workers: Workers, device: torch.device) -> np.ndarray:
    """Gather the nats: each image was computed by one worker and is zero elsewhere, so that adding is exact."""
    summed = workers.sum(nats_N.to(device) if workers.world > 1 else nats_N)
    return summed.cpu().numpy()
