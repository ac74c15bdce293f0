"""Checks of the images and labels that a caller gives: a wrong scale or layout would still give a plausible number."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.config import ImageSpec
from pixeltune.errors import ConfigError, DataError
from pixeltune.models.conditioning import NO_LABEL

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require_level_type(images: Tensor, form: ImageSpec) -> None:
    """Refuse images that are not integers of shape (B, C, H, W). Nothing waits for a GPU.

    Args:
        images: What a caller gave.
        form: The form of the model's images.

    Raises:
        DataError: The type or the shape is wrong.
    """
    rule = f"images must be integer levels 0 to {form.levels - 1} of shape (B, {', '.join(map(str, form.shape))})"
    if not isinstance(images, Tensor):
        raise DataError(f"{rule}, but got {type(images).__name__}; give a tensor, such as torch.from_numpy(array)")
    shape = tuple(images.shape)
    if images.dtype not in _INTEGERS:
        kind = str(images.dtype).removeprefix("torch.")
        advice = "give levels as torch.uint8 or torch.int64"
        if images.is_floating_point():
            advice = f"values in [0, 1], as ToTensor makes, are levels after ({form.levels - 1} * x).round().long()"
        raise DataError(f"{rule}, but got {kind} of shape {shape}; {advice}")
    if len(shape) != 4 or shape[1:] != form.shape:
        raise DataError(f"{rule}, but got shape {shape}; give images of the form that the model was built for")


def require_levels(images: Tensor, form: ImageSpec) -> None:
    """Refuse images that are not integer levels 0 to K-1 of shape (B, C, H, W).

    Levels on a GPU are looked at, which waits for it; within torch.compile, a CUDA graph or vmap they are not.

    Args:
        images: What a caller gave.
        form: The form of the model's images.

    Raises:
        DataError: The type, the shape or a level is wrong.
    """
    require_level_type(images, form)
    if images.dtype == torch.uint8 and form.levels == 256:
        return
    low, high = _range_of(images)
    if low < 0 or high >= form.levels:
        raise DataError(
            f"images must have levels 0 to {form.levels - 1}, but got {low} to {high}; "
            "quantise or binarise them as the data that the model was built for"
        )


def require_labels(labels: Tensor, count: int, num_classes: int) -> None:
    """Refuse labels that are not one class, or NO_LABEL, for each of `count` images.

    Args:
        labels: What a caller gave.
        count: Images.
        num_classes: Classes of the model's data.

    Raises:
        ConfigError: The type, the shape or a class is wrong.
    """
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        kind = str(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
        raise ConfigError(f"`labels` must be whole numbers, but got {kind}; give a tensor of torch.int64, or None")
    if tuple(labels.shape) != (count,):
        raise ConfigError(f"`labels` must be {count}, one an image, but got shape {tuple(labels.shape)}")
    low, high = _range_of(labels)
    if low < NO_LABEL or high >= num_classes:
        raise ConfigError(
            f"`labels` must be in 0..{num_classes - 1}, or be {NO_LABEL} for none, but got {low} to {high}"
        )


def _range_of(values: Tensor) -> tuple[int, int]:
    """Return the smallest and largest value; 0 and 0 where there is none, or none can be read."""
    is_captured = values.is_cuda and torch.cuda.is_current_stream_capturing()
    if not values.numel() or torch.compiler.is_compiling() or is_captured:
        return 0, 0
    try:
        low, high = torch.stack(values.aminmax()).tolist()
    except RuntimeError:  # tensors without values: on the meta device, fake ones, within vmap
        return 0, 0
    return low, high
