"""Blocks of layers: what a network computes again instead of keeping, and what is compiled as one.

Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): a block keeps what enters it and computes its layers
again for the gradient, dropout masks included, for one more forward pass. Compiled block by block, blocks alike share
their code, where the whole network would be one long program. Both concern training with gradients alone: the audit,
evaluation and sampling run the layers as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_MOST_KINDS = 256
"""Kinds of blocks that are compiled: beyond `recompile_limit`, by default 8, torch runs the rest uncompiled."""


class LayerBlock(nn.Module):
    """A block of layers. recomputes: whether it keeps its inputs alone in training. compiled: its forward, if so."""

    recomputes: bool = False
    compiled: Callable[..., Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        """Call the module; in training perhaps compiled, kept or computed again."""
        if not (self.training and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        run = self.compiled or super().__call__
        return checkpoint(run, *inputs, use_reentrant=False) if self.recomputes else run(*inputs)


def recompute_blocks(model: nn.Module) -> None:
    """Make each block compute its layers again from now on; of nested ones the outermost."""
    for block in _outermost_blocks(model):
        block.recomputes = True


def compile_blocks(model: nn.Module) -> None:
    """Make each block train compiled from now on; of nested ones the outermost."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_KINDS)
    for block in _outermost_blocks(model):
        block.compiled = torch.compile(block.forward)


def _outermost_blocks(module: nn.Module) -> Iterator[LayerBlock]:
    for child in module.children():
        if isinstance(child, LayerBlock):
            yield child
        else:
            yield from _outermost_blocks(child)
