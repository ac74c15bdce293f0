"""The weights of record, checked as they are evaluated: what an audit before training cannot know.

A gate that starts at zero may have opened, a buffer that was zero may have filled, a counter may have run out, and a
leak may act in float32, in eval mode, in batches of one size or at one place of a batch alone. So the cuts of `order()`
are tried again with the very arithmetic and batch shape of an evaluation, each place of the batch with an image, a
label and a cut of its own; then one cut for each label in float64, which shows leaks that float32 rounds away.
"""

from __future__ import annotations

import copy

import torch

from pixeltune.audit.cuts import NUM_CUTS, Probes, check_cuts, num_probes
from pixeltune.audit.sites import device_of, theta_of_levels
from pixeltune.errors import AuditError
from pixeltune.models import DensityModel, eval_mode
from pixeltune.models.exact import exact_float32

FLOAT32_TOLERANCE = 1e-3
"""Largest change of θ, relative to max(1, |θ|), that counts as none in float32. Kernels that compute tiles at once,
such as Winograd's, round a pixel by what comes after it; a leak of a hundredth of a bit moves θ by about 0.1."""

NATS_TOLERANCE = 1e-3
"""Largest difference of nats between float32 and float64, relative to them or to a tenth of a nat a sub-pixel."""

IMAGES_IN_FLOAT64 = 4


def check_trained(model: DensityModel, *, batch_size: int, num_cuts: int = NUM_CUTS, seed: int = 0) -> None:
    """Examine a model's causality at the weights that it has, in eval mode; the model is left as it was.

    It costs an evaluation of 1 + ⌈num_cuts / batch_size⌉ batches, and a few images in float64.

    Args:
        model: trained, on the device and in the dtype in which it is evaluated.
        batch_size: images a network call in its evaluation.
        num_cuts: cuts of `order()` that are tried at least, or all that there are.
        seed: of cuts and images.

    Raises:
        AuditError: naming what θ depends on and must not.
    """
    is_float64 = next(model.parameters()).dtype == torch.float64
    with torch.inference_mode(False), torch.no_grad(), eval_mode(model), exact_float32():
        check_cuts(
            model,
            num_cuts=num_cuts,
            batch_size=batch_size,
            seed=seed,
            **({} if is_float64 else {"tolerance": FLOAT32_TOLERANCE}),
        )
        if not is_float64:
            twin = copy.deepcopy(model).double().requires_grad_(False)
            check_cuts(twin, num_cuts=num_probes(twin), seed=seed)
            _require_same_nats(model, twin, batch_size, seed)


def _require_same_nats(model: DensityModel, twin: DensityModel, batch_size: int, seed: int) -> None:
    """Require that the nats of images in a batch, as they are evaluated, are those of a few of them in float64."""
    probes = Probes.of(model, batch_size, seed=seed)
    rows = torch.linspace(0, batch_size - 1, min(IMAGES_IN_FLOAT64, batch_size)).long().to(device_of(model))
    given = probes.given
    claimed_B = model.log_prob_given(probes.base_RCHW, given.label_B, given.z_BD)[rows].double()
    x_BCHW = probes.base_RCHW[rows]
    few = type(given)(given.label_B[rows], given.z_BD[rows].double())
    exact_B = twin.likelihood.log_prob(theta_of_levels(twin, x_BCHW, few), twin.split.to_sites(x_BCHW))
    allowed_B = NATS_TOLERANCE * exact_B.abs().clamp(min=0.1 * model.form.dims)
    error_B = (claimed_B - exact_B).abs().where(claimed_B.isfinite() & exact_B.isfinite(), 0.0)
    if bool((error_B > allowed_B).any()):
        worst = int((error_B / allowed_B).argmax())
        raise AuditError(
            f"log_prob of an image in a batch of {batch_size} must be its nats in float64, {exact_B[worst]:.7g}, "
            f"but is {claimed_B[worst]:.7g}; the model is rejected"
        )
