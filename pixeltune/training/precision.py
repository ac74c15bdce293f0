"""Which number format the network trains in."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pixeltune.models import DensityModel

_PROBE_STEPS = 3
_WORTH_IT = 1.1
"""How much faster bfloat16 must be to be taken: below it the probe's noise would decide."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The network's forward pass in `precision`; the likelihood leaves it by itself."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def choose_precision(wanted: str, model: DensityModel, batch_BCHW: Tensor) -> str:
    """`float32` or `bfloat16`; `auto` times both on this model, batch and device where bfloat16 has hardware."""
    if wanted != "auto":
        return wanted
    if not _has_fast_bfloat16(batch_BCHW.device):
        return "float32"
    seconds = {precision: _probe(precision, model, batch_BCHW) for precision in ("float32", "bfloat16")}
    return "bfloat16" if seconds["float32"] > _WORTH_IT * seconds["bfloat16"] else "float32"


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def _probe(precision: str, model: DensityModel, batch_BCHW: Tensor) -> float:
    """The fastest of a few forward and backward passes; the gradients are thrown away, the weights unchanged."""
    was_training = model.training
    model.eval()  # a pass in training mode would move batch-norm statistics
    seconds = []
    for _ in range(_PROBE_STEPS):
        start = time.perf_counter()
        with autocast(precision, batch_BCHW.device):
            model.loss(batch_BCHW).mean().backward()
        if batch_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return min(seconds)
