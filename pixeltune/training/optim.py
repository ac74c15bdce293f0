"""The optimiser, the learning rate as a pure function of the step, and the bias-corrected average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pixeltune.config import OptimConfig, TrainConfig


def learning_rate(optim: OptimConfig, train: TrainConfig, step: int) -> float:
    """Return the rate of optimiser step `step`, counted from 0."""
    steps = train.images // train.batch_size
    warmup_steps = optim.warmup * steps
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if optim.schedule == "cosine":
        done = max(0.0, step - warmup_steps) / max(1.0, steps - warmup_steps)
        return optim.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if optim.schedule == "exponential":
        return optim.lr * warm * optim.decay**step
    return optim.lr * warm


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build Adam; with weight decay AdamW, whose decay is not scaled by the gradient's statistics.

    One kernel updates all weights, or none where its attribute `found_inf` is 1.
    """
    kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
    return kind(
        model.parameters(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from `state`, whichever of Adam's implementations it was saved by; the one in use stays."""
    (used,) = optimizer.param_groups
    implementation = {name: used[name] for name in ("fused", "foreach")}
    groups = [group | implementation for group in state["param_groups"]]
    optimizer.load_state_dict(state | {"param_groups": groups})


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """Build the exponential average of the weights after each step, corrected for its start.

    The plain average w̄_t = β w̄_{t-1} + (1-β) w_t still holds β^t of the first weights. Divided by (1 - β^t), as
    Adam divides its moments (Kingma & Ba 2015, §3), it is an average of w_1 … w_t alone. In one update:
    w̄ += (w - w̄)·(1-β)/(1-β^t), with t the number of this update.
    """

    def toward(averages: Sequence[Tensor], weights: Sequence[Tensor], updates_before: Tensor | int) -> None:
        share = (1 - decay) / (1 - decay ** (int(updates_before) + 1))
        torch._foreach_lerp_(list(averages), list(weights), share)

    return AveragedModel(model, multi_avg_fn=toward)
