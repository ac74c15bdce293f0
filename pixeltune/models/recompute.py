"""Activation checkpointing: blocks of layers that keep what enters them, and compute the rest again for the gradient.

Chen et al. 2016, arXiv 1604.06174. A deep network keeps a few features a block instead of every layer's, for one more
forward pass. Dropout draws the same masks again. Nothing changes but in training with gradients: the audit, evaluation
and sampling run the layers as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A block of layers. recomputes: whether it keeps its inputs alone in training."""

    recomputes: bool = False

    def __call__(self, *inputs: Any) -> Any:
        """The module's own call, kept or computed again."""
        if self.recomputes and self.training and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


def recompute_blocks(network: nn.Module) -> None:
    """From now on each block computes its layers again; of nested ones the outermost."""
    for block in _outermost_blocks(network):
        block.recomputes = True


def _outermost_blocks(module: nn.Module) -> Iterator[Recomputable]:
    for child in module.children():
        if isinstance(child, Recomputable):
            yield child
        else:
            yield from _outermost_blocks(child)
