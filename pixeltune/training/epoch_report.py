"""What training reports: one row of a learning curve. No torch here, so that readers stay light."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a training is between two reports, for a display; it is no result.

    Attributes:
        images_seen: Training images so far, repeats counted.
        images_per_second: Training speed since the progress or report before.
        train_bits_per_dim: Mean over the images trained on since the last report (weights moving, dropout on).
    """

    images_seen: int
    images_per_second: float
    train_bits_per_dim: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """The state of a trial at one report.

    Validation is exact (or the bound, for a model with one) over the whole validation set; it is None with
    `data.train_on_valid`, which leaves nothing to validate on. The weights of record are the average where
    `optim.ema` > 0, else the raw ones.

    Attributes:
        images_seen: Training images so far, repeats counted.
        step: Optimiser steps so far.
        epoch: images_seen / training images.
        train_bits_per_dim: Mean over the images trained on since the report before (weights moving, dropout on).
        train_nats: The same in nats per image.
        valid_bits_per_dim: Mean bits/dim of the validation images with the weights of record.
        valid_nats: The same in nats per image.
        valid_bits_per_dim_raw: With the raw weights.
        valid_nats_raw: The same in nats per image.
        valid_bits_per_dim_ema: With the averaged weights; None without an average.
        valid_nats_ema: The same in nats per image.
        lr: Learning rate of the last step.
        grad_norm: Mean norm of the gradient of the mean nats per image since the report before, before clipping.
        train_seconds: Summed over the trial.
        eval_seconds: Summed over the trial.
        compile_seconds: Compiling and the first step, which warms up, summed over the trial.
        images_per_second: Training speed since the report before.
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
