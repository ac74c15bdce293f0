"""What training says at each report: one row of a learning curve. No torch here, so that readers stay light."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """The state of a trial at one report.

    images_seen, step: training images and optimiser steps so far. epoch: images_seen / training images.
    train_bits_per_dim, train_nats: mean over the images trained on since the report before (weights moving,
        dropout on); nats are per image.
    valid_bits_per_dim, valid_nats: exact, over the whole validation set, with the weights of record: the
        average where `optim.ema` > 0, else the raw ones; `_raw` and `_ema` give each. None with
        `data.train_on_valid`, which leaves nothing to validate on.
    lr: learning rate of the last step. grad_norm: mean norm of the gradient of the mean nats per image since the
        report before, before clipping.
    train_seconds, eval_seconds, compile_seconds: summed over the trial; compiling and the first step, which
        warms up, count as compile_seconds. images_per_second: training speed since the report before.
    """

    images_seen: int
    step: int
    epoch: float
    train_bits_per_dim: float
    train_nats: float
    valid_bits_per_dim: float | None
    valid_nats: float | None
    valid_bits_per_dim_raw: float | None
    valid_nats_raw: float | None
    valid_bits_per_dim_ema: float | None
    valid_nats_ema: float | None
    lr: float
    grad_norm: float
    train_seconds: float
    eval_seconds: float
    compile_seconds: float
    images_per_second: float
