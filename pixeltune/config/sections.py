"""The sections that every configuration has: data, optim, train."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator

from pixeltune.config.section import Section
from pixeltune.errors import ConfigError

Layout = Literal["channels_first", "channels_last"]
"""The layout of four-dimensional tensors in memory: (B, F, H, W), or (B, H, W, F)."""


class DataConfig(Section):
    """The images and their form."""

    name: str
    """a source in `pixeltune.data.SOURCES`, or a function of your own as `package.module:function`."""
    path: str | None = None
    """folder or file of the images; None for the cache folder (`PIXELTUNE_DATA`, else ~/.cache/pixeltune/data)."""
    download: bool = False
    """fetch a downloadable set that is absent."""
    follow_links: bool = False
    """read files and folders outside the data folder to which links in it lead; without it such a link is refused."""
    levels: int | None = Field(default=None, ge=2, le=256)
    """quantise to this many grey levels, 2 to 256; None keeps the source's own."""
    grey: bool = False
    """one luma channel instead of colours."""
    binarise: Literal["none", "static", "dynamic", "threshold"] = "none"
    """`static` draws each pixel once with `binarise_seed`, `dynamic` draws training pixels again in each epoch,
    `threshold` cuts at half; each needs grey levels and leaves 2.
    """
    binarise_seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the static draw."""
    flip: bool = False
    """training images left to right with probability ½, drawn again in each epoch with the configuration's seed;
    validation and test stay as they are.
    """
    resize: int | None = Field(default=None, ge=2, le=4096)
    """side length to which images are resized (box filter); None takes them as they are."""
    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    """share of the training images that is used (seeded by split_seed); validation and test stay whole."""
    num_valid: int | None = Field(default=None, ge=1)
    """images carved from train as validation; None for the source's own choice."""
    test_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """share of the images held out as test set, for a source without one; 0 holds none out. With it, source `folder`
    takes a folder of images without `train/`.
    """
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the carving; not the trial's seed, so all trials of a search see one split."""
    train_on_valid: bool = False
    """train on the training and the validation images together, which leaves none to validate on: for `pixeltune
    final`, which reads the test set.
    """

    @field_validator("path", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(text, str) and (not text.strip() or "\0" in text):
            raise ConfigError(f"`data.path` must be a folder or a file, but got {text!r}; give one, or none")
        return text


class OptimConfig(Section):
    """Adam on the mean nats per image."""

    lr: float = Field(default=1e-3, gt=0.0, le=1.0)
    """learning rate after warm-up."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """decay of Adam's first moment."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """decay of Adam's second moment."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Adam's ε."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """decoupled weight decay."""
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    """`constant`; `cosine` to zero at `train.images`; `exponential`: lr × decay^step, per step (PixelCNN++: 0.999995).
    """
    decay: float = Field(default=0.999995, gt=0.0, le=1.0)
    """factor of the learning rate per step, `exponential` only."""
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    """share of `train.images` over which lr rises linearly from zero."""
    clip: float | None = Field(default=None, gt=0.0)
    """largest norm of the gradient of the mean nats per image; None does not clip."""
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    """decay of the bias-corrected average of the weights; 0 keeps none, and the raw weights are of record."""


class TrainConfig(Section):
    """The length and the arithmetic of training."""

    images: int = Field(default=100_000, ge=1)
    """training images to see in all, repeats counted; a multiple of batch_size. Schedules are shares of them."""
    stop_after: int | None = Field(default=None, ge=1)
    """images after which training stops early, its schedule as it was; None trains to the end."""
    batch_size: int = Field(default=32, ge=1)
    """images per optimiser step, over all workers."""
    report_every: int | None = Field(default=None, ge=1)
    """images between reports, a multiple of batch_size; None for one pass of the training set."""
    eval_batch_size: int = Field(default=100, ge=1)
    """the one batch shape of evaluation, on each worker."""
    micro_batch: int | None = Field(default=None, ge=1)
    """images that each worker passes through the network at once in training; a step adds up the gradients of as many
    passes as its part of the batch needs. None takes the whole part, or on a GPU what fits. It changes numbers by their
    rounding, and the draws of dropout.
    """
    checkpoint_activations: bool = False
    """keep only what enters each block of layers and compute the rest again for the gradient: less memory for a forward
    pass more. It changes no number.
    """
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the network in training; `auto` takes bfloat16 only where a probe shows it faster. The likelihood and every
    number of record are float32.
    """
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """of features in memory in training; `auto` takes channels_last only where a probe shows it faster. It changes
    numbers by their rounding alone.
    """
    compile: bool = False
    """torch.compile of each block of layers and of the likelihood, in training; evaluation stays uncompiled. It changes
    numbers by their rounding, and the draws of dropout.
    """

    @property
    def end(self) -> int:
        """Return the number of training images after which training is over."""
        return self.images if self.stop_after is None else self.stop_after
