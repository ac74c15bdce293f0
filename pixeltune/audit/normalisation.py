"""Whether probabilities sum to one, pixel by pixel, and whether `log_prob` of images is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pixeltune.audit.cuts import Probes
from pixeltune.audit.sites import fixed_generator, theta_of_levels
from pixeltune.errors import AuditError
from pixeltune.likelihoods import Likelihood
from pixeltune.models import DensityModel

MAX_PIXELS = 64
MAX_COLOURS = 192
"""Pixels whose probabilities are summed, of the model's own θ and as many of a random θ; fewer where coupled tiles make
pixels of many colours."""
IMAGE_SIZES = ((1, 1), (2, 3), (5, 4))
IMAGES = 3
"""Images of these sizes whose `log_prob` is compared with the tables of their pixels, and how many in a batch."""
MASS_TOLERANCE = 1e-9
"""Largest error of a sum of K probabilities, or of a log probability relative to max(1, |nats|)."""
FLOAT32_TOLERANCE = 1e-3
"""The same of a log probability in float32, in which numbers of record are computed."""


def check_normalisation(model: DensityModel) -> float:
    """Require, at θ of the model and at random θ, that levels sum to one and `log_prob` is the sum of their logs.

    This is checked on single pixels and on images of several sizes: a pixel's probabilities must follow from its own θ
    and its own earlier colours, independent of what is next to it in the image or in the batch.

    Returns the largest distance of a sum from one. Raises AuditError.
    """
    worst = max(_check_pixels(model.likelihood, theta) for theta in _pixel_thetas(model))
    for height, width in IMAGE_SIZES:
        _check_images(model.likelihood, height, width, next(model.parameters()).device)
    return worst


def _pixel_thetas(model: DensityModel) -> Iterator[Tensor]:
    """Yield θ of one-pixel images, from the model and at random."""
    first = torch.zeros(1, dtype=torch.int64)
    probes = Probes.of(model, 1)
    theta = theta_of_levels(model, probes.base_RCHW, probes.given[first])[0].flatten(-2)
    num_pixels = max(1, min(MAX_PIXELS, MAX_COLOURS // model.likelihood.channels))
    pixels = torch.randperm(theta.shape[-1], generator=fixed_generator())[:num_pixels].to(theta.device)
    yield theta[..., pixels].movedim(-1, 0)[..., None, None]
    shape = model.likelihood.theta_shape(num_pixels, 1, 1)
    yield torch.randn(shape, generator=fixed_generator(), dtype=torch.float64).to(theta.device)


def _check_pixels(likelihood: Likelihood, theta: Tensor) -> float:
    num_pixels, generator = len(theta), fixed_generator()
    likely = likelihood.sample(theta, likelihood.noise(num_pixels, 1, 1, generator, torch.float64, theta.device))
    uniform = torch.randint(likelihood.levels, likely.shape, generator=generator).to(theta.device)
    return max(_check_levels(likelihood, theta, x_BC11) for x_BC11 in (likely, uniform))


def _check_levels(likelihood: Likelihood, theta: Tensor, x_BC11: Tensor) -> float:
    worst, nats = 0.0, []
    for j in range(likelihood.channels):
        probs_BK11 = likelihood.table(theta, x_BC11[:, :j])
        sums = probs_BK11.sum(1).flatten()
        worst = max(worst, float((sums - 1).abs().max()))
        if not worst <= MASS_TOLERANCE or not probs_BK11.min() >= 0:
            furthest = float(sums[(sums - 1).abs().argmax()])
            least = float(probs_BK11.min())
            negative = f", the least of them {least:.3g}" if least < 0 else ""
            raise AuditError(
                f"the probabilities of the {likelihood.levels} levels of colour {j} must sum to one, "
                f"but sum to {furthest:.9g}{negative}; the model is rejected"
            )
        nats.append(probs_BK11.gather(1, x_BC11[:, j : j + 1]).log().flatten())
    _require_agreement(likelihood.log_prob(theta, x_BC11), torch.stack(nats, 1), x_BC11, MASS_TOLERANCE)
    return worst


def _check_images(likelihood: Likelihood, height: int, width: int, device: torch.device) -> None:
    """Compare a batch of images with their pixels, each as an image of one pixel."""
    generator = fixed_generator(height * width)
    shape = likelihood.theta_shape(IMAGES, height, width)
    theta = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
    x_BCHW = _levels(likelihood, height, width, generator).to(device)
    pixel_theta, pixels = _as_pixels(theta), _as_pixels(x_BCHW)
    nats = []
    for j in range(likelihood.channels):
        alone_nK = likelihood.table(pixel_theta, pixels[:, :j])[..., 0, 0]
        together_nK = _as_pixels(likelihood.table(theta, x_BCHW[:, :j]))[..., 0, 0]
        if not (alone_nK - together_nK).abs().max() <= MASS_TOLERANCE:
            raise AuditError(
                f"the probabilities of colour {j} must follow from the pixel's own θ and its own earlier colours, but "
                f"change with the rest of a batch of {IMAGES} images of {height}×{width}; the model is rejected"
            )
        nats.append(alone_nK.gather(1, pixels[:, j, :, 0]).log().view(IMAGES, height * width))
    nats_BS = torch.cat(nats, 1)
    _require_agreement(likelihood.log_prob(theta, x_BCHW), nats_BS, x_BCHW, MASS_TOLERANCE)
    _require_agreement(likelihood.log_prob(theta.float(), x_BCHW).double(), nats_BS, x_BCHW, FLOAT32_TOLERANCE)


def _levels(likelihood: Likelihood, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw random levels (B, C, H, W); the last image has the lowest and the highest alone."""
    shape = (IMAGES, likelihood.channels, height, width)
    x_BCHW = torch.randint(likelihood.levels, shape, generator=generator)
    x_BCHW[-1] = (likelihood.levels - 1) * torch.randint(2, shape[1:], generator=generator)
    return x_BCHW


def _as_pixels(images: Tensor) -> Tensor:
    """Return (B, …, H, W) as (B·H·W, …, 1, 1)."""
    return images.flatten(-2).movedim(-1, 1).flatten(0, 1)[..., None, None]


def _require_agreement(log_prob_B: Tensor, nats_BS: Tensor, x_BCHW: Tensor, tolerance: float) -> None:
    """Compare with the nats of the sub-pixels of each image."""
    nats_B = nats_BS.sum(1)
    # Below e^−700 a probability is no longer a normal number of float64, while its log still is.
    is_normal_B = (nats_BS > -700).all(1)
    error_B = ((log_prob_B - nats_B).abs() / nats_B.abs().clamp(min=1)).where(is_normal_B | log_prob_B.isnan(), 0.0)
    if not error_B.max() <= tolerance:
        image = int(error_B.nan_to_num(nan=math.inf).argmax())
        height, width = x_BCHW.shape[2:]
        what = "a pixel" if height * width == 1 else f"an image of {height}×{width} pixels"
        shown = x_BCHW[image].flatten(1).T.flatten().tolist()
        raise AuditError(
            f"log_prob of {what} of levels {shown[:12]} must be the sum of the logs of its "
            f"table's probabilities, {nats_B[image]:.9g}, but is {log_prob_B[image]:.9g}; the model is rejected"
        )
