"""Whether probabilities sum to one, and whether `log_prob` is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pixeltune.audit.sites import fixed_generator, theta_of, two_images
from pixeltune.errors import AuditError
from pixeltune.likelihoods import Likelihood
from pixeltune.models import DensityModel

MAX_PIXELS = 64
MAX_COLOURS = 192
"""Pixels whose probabilities are summed, of the model's own θ and as many of a random θ; fewer where coupled tiles make
pixels of many colours."""
MASS_TOLERANCE = 1e-9
"""Largest error of a sum of K probabilities, or of a log probability relative to max(1, |nats|)."""


def check_normalisation(model: DensityModel) -> float:
    """At θ of the model and at random θ: each colour's levels sum to one, and `log_prob` is the sum of their logs.

    Returns the largest distance of a sum from one. Raises AuditError.
    """
    return max(_check_pixels(model.likelihood, theta) for theta in _pixel_thetas(model))


def _pixel_thetas(model: DensityModel) -> Iterator[Tensor]:
    """θ of one-pixel images, from the model and at random."""
    base_CHW, _ = two_images(model)
    with torch.no_grad():
        theta = theta_of(model, model.scale(base_CHW[None]))[0].flatten(-2)
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
    worst, nats_B = 0.0, theta.new_zeros(len(theta))
    for j in range(likelihood.channels):
        probs_BK11 = likelihood.table(theta, x_BC11[:, :j])
        sums = probs_BK11.sum(1).flatten()
        worst = max(worst, float((sums - 1).abs().max()))
        if not worst <= MASS_TOLERANCE:
            furthest = float(sums[(sums - 1).abs().argmax()])
            raise AuditError(
                f"the probabilities of the {likelihood.levels} levels of colour {j} must sum to one, "
                f"but sum to {furthest:.9g}; the model is rejected"
            )
        nats_B = nats_B + probs_BK11.gather(1, x_BC11[:, j : j + 1]).log().flatten()
    _require_agreement(likelihood.log_prob(theta, x_BC11), nats_B, x_BC11)
    return worst


def _require_agreement(log_prob_B: Tensor, nats_B: Tensor, x_BC11: Tensor) -> None:
    # Below e^−700 a probability is no longer a normal number of float64, while its log still is.
    error_B = ((log_prob_B - nats_B).abs() / nats_B.abs().clamp(min=1)).where((nats_B > -700) | log_prob_B.isnan(), 0.0)
    if not error_B.max() <= MASS_TOLERANCE:
        pixel = int(error_B.nan_to_num(nan=math.inf).argmax())
        raise AuditError(
            f"log_prob of a pixel of levels {x_BC11[pixel].flatten().tolist()} must be the sum of the logs of its "
            f"table's probabilities, {nats_B[pixel]:.9g}, but is {log_prob_B[pixel]:.9g}; the model is rejected"
        )
