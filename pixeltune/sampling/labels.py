"""Labels as a caller gives them, one an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.models import NO_LABEL, DensityModel


def checked_labels(model: DensityModel, n: int, labels: Sequence[int] | Tensor | None) -> Tensor:
    """A class or NO_LABEL for each of n images; ConfigError where the model or n do not admit them."""
    if labels is None:
        return torch.full((n,), NO_LABEL)
    if model.conditioning is None:
        raise ConfigError("`labels` need a model with a model.conditioning of bias or map, but it has none")
    if torch.as_tensor(labels).is_floating_point():
        raise ConfigError(f"`labels` must be whole numbers, but got {torch.as_tensor(labels).tolist()}")
    label_N, num_classes = torch.as_tensor(labels, dtype=torch.int64).cpu(), model.conditioning.num_classes
    if label_N.shape != (n,):
        raise ConfigError(f"`labels` must be {n}, one an image, but got shape {tuple(label_N.shape)}")
    if not ((label_N >= 0) & (label_N < num_classes) | (label_N == NO_LABEL)).all():
        raise ConfigError(f"`labels` must lie in 0..{num_classes - 1}, but got {label_N.tolist()}")
    return label_N
