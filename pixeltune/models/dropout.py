"""Dropout (Srivastava et al. 2014, JMLR 15) whose masks are drawn 64 features at a time.

On a CPU `nn.Dropout` draws a number a feature on one thread, a fifth of the training step of PixelCNN++. Here a mask is
bits: a random word decides 64 features, and words combined by AND and OR give rates other than a half. Features are
dropped in the order (B, H, W, F) in every layout of the tensor, so that the choice of a layout changes no mask. The
gradient unpacks the bits again rather than keep the mask.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BITS = 16
"""Binary digits of a rate: it is exact to 2⁻¹⁷, and its expected value is."""
_BYTES = torch.tensor(list(itertools.product([0, 1], repeat=8)), device="cpu", dtype=torch.uint8).view(torch.int64)[
    :, 0
]
"""The eight bits of each byte, as eight bytes of zero or one."""


class Dropout(nn.Module):
    """Each feature zero with the probability `rate`, the others divided by 1 − rate; in eval mode the identity."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of x."""
        if not self.training or not self.rate:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)  # there one kernel draws and multiplies
        dropped: Tensor = _Masked.apply(x, keep_bits(x.numel(), self.rate), self.rate)
        return dropped

    def extra_repr(self) -> str:
        """Return one line for print(model)."""
        return f"{self.rate}"


def keep_bits(count: int, rate: float) -> Tensor:
    """Draw int64 words of at least `count` bits, each one with the probability 1 − rate, with the CPU's generator.

    With p = 0.b₁b₂…bₙ in binary, a bit that starts as zero and is, for n, …, 1, OR-ed with a fair bit where bᵢ is one
    and AND-ed where it is zero, is one with the probability p.
    """
    digits = round(_kept(rate) * 2**_BITS)
    lowest = (digits & -digits).bit_length() - 1
    words = torch.zeros(-(-count // 64), dtype=torch.int64)
    for place in range(lowest, _BITS):
        fair = torch.randint(-(2**63), 2**63 - 1, words.shape)
        words = fair | words if digits >> place & 1 else fair & words
    return words


def _kept(rate: float) -> float:
    """Return 1 − rate in binary digits; never nothing, never all."""
    return min(max(round((1 - rate) * 2**_BITS), 1), 2**_BITS - 1) / 2**_BITS


class _Masked(torch.autograd.Function):
    """The product of x and the mask that the words hold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, words: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(words)
        ctx.rate = rate
        return x * _mask(words, x, rate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (words,), (grad,) = ctx.saved_tensors, grads
        return grad * _mask(words, grad, ctx.rate), None, None


def _mask(words: Tensor, like: Tensor, rate: float) -> Tensor:
    """Return zeros and 1 / (1 − rate), of the shape and dtype of `like`."""
    bits = _BYTES.index_select(0, words.view(torch.uint8).int()).view(torch.uint8)[: like.numel()]
    if like.dim() != 4:
        return bits.view(like.shape).to(like.dtype).mul_(1 / _kept(rate))
    B, channels, H, W = like.shape
    bits_BHWF = bits.view(B, H, W, channels)
    if like.is_contiguous():  # as bytes they are moved sooner than as numbers
        bits_BFHW = bits_BHWF.view(B, H * W, channels).transpose(1, 2).contiguous().view(like.shape)
    else:
        bits_BFHW = bits_BHWF.permute(0, 3, 1, 2)
    return bits_BFHW.to(like.dtype).mul_(1 / _kept(rate))
