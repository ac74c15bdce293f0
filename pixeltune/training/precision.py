"""Which number format and which layout the network trains in."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from pixeltune.config import Layout, TrainConfig
from pixeltune.models import DensityModel

_PROBE_STEPS = 3
_WORTH_IT = 1.1
"""How much faster another format or layout must be to be taken: below it the probe's noise would decide."""
_WORTH_PROBING = 1e10
"""Operations of a step below which the defaults are taken: calls count there, not arithmetic. Counted rather than
timed, so that a small network is always trained alike."""


@dataclass(frozen=True)
class Numerics:
    """Number format and layout of training.

    precision: `float32` or `bfloat16`, of the products. layout: of features in memory.
    """

    precision: str
    layout: Layout


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Run the network's forward pass in `precision`; the likelihood leaves it by itself."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def laid_out(model: DensityModel, layout: Layout) -> Iterator[None]:
    """Set the layout of the network's features in memory; its weights, and evaluation, do not depend on it."""
    before, model.layout = model.layout, layout
    try:
        yield
    finally:
        model.layout = before


def choose_numerics(wanted: TrainConfig, model: DensityModel, batch_BCHW: Tensor) -> Numerics:
    """Time what `auto` leaves open on this model, batch and device; bfloat16 only where it has hardware."""
    default = Numerics(
        "float32" if wanted.precision == "auto" else wanted.precision,
        "channels_first" if wanted.layout == "auto" else wanted.layout,
    )
    precisions, layouts = [default.precision], [default.layout]
    if wanted.precision == "auto" and _has_fast_bfloat16(batch_BCHW.device):
        precisions = ["float32", "bfloat16"]
    if wanted.layout == "auto":
        layouts = list(get_args(Layout))
    choices = [Numerics(*choice) for choice in itertools.product(precisions, layouts)]
    if len(choices) == 1 or _operations(model, len(batch_BCHW)) < _WORTH_PROBING:
        return default
    seconds = {choice: _probe(choice, model, batch_BCHW) for choice in choices}
    fastest = min(choices, key=seconds.__getitem__)
    return fastest if seconds[default] > _WORTH_IT * seconds[fastest] else default


def _operations(model: DensityModel, batch: int) -> float:
    """Return the operations of a step, as if each weight met each pixel of a tile: two forward, four backward."""
    pixels = model.form.height * model.form.width / model.config.model.split**2
    return 6.0 * model.num_parameters() * pixels * batch


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _probe(choice: Numerics, model: DensityModel, batch_BCHW: Tensor) -> float:
    """Return the fastest of a few forward and backward passes; the gradients are discarded, the weights unchanged."""
    was_training = model.training
    model.eval()  # a pass in training mode would move batch-norm statistics
    seconds = []
    for _ in range(_PROBE_STEPS):
        start = time.perf_counter()
        with autocast(choice.precision, batch_BCHW.device), laid_out(model, choice.layout):
            model.loss(batch_BCHW).mean().backward()
        if batch_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return min(seconds)
