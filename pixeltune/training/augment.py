"""What is drawn for each training image in each epoch, on the device where the image is.

Dynamic binarisation repeats the arithmetic of `pixeltune.data.counter_rng` (SplitMix64) on tensors, bit for bit.
PyTorch has no unsigned 64-bit products; those of int64 have the same bits, because both wrap around.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = (word - (1 << 64) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_binary(pixels_BCHW: Tensor, keys_B: Tensor, *, levels: int) -> Tensor:
    """Draw (B, C, H, W) uint8 of zeros and ones, P(1) = v / (levels - 1), as `pixeltune.data.dataset.draw_binary` does.

    keys_B: int64, the bits of numpy's uint64 keys.
    """
    thresholds_BD = below(keys_B, pixels_BCHW[0].numel(), levels - 1)
    return (thresholds_BD.view_as(pixels_BCHW) < pixels_BCHW).to(torch.uint8)


def flip(x_BCHW: Tensor, flipped_B: Tensor) -> Tensor:
    """Flip left to right where `flipped_B` (B,), bool, is true."""
    return torch.where(flipped_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)


def below(keys_B: Tensor, count: int, limit: int) -> Tensor:
    """Draw (B, count) int64, uniform over 0..limit-1, as `pixeltune.data.counter_rng.below`; limit at most 2^31."""
    ordinals_D = torch.arange(1, count + 1, device=keys_B.device)
    bits_BD = _mix(keys_B[:, None] + _GOLDEN * ordinals_D)
    return (_shifted(bits_BD, 32) * limit) >> 32


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift to the right, zeros coming in as they do for unsigned numbers."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
