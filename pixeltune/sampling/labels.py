"""Labels as a caller gives them, one an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pixeltune.errors import ConfigError
from pixeltune.models import NO_LABEL, DensityModel
from pixeltune.models.inputs import require_labels


def checked_labels(model: DensityModel, n: int, labels: Sequence[int] | Tensor | np.ndarray | None) -> Tensor:
    """Return a class or NO_LABEL for each of n images; ConfigError where the model or n do not admit them."""
    if labels is None:
        return torch.full((n,), NO_LABEL)
    if model.conditioning is None:
        raise ConfigError("`labels` need a model with a model.conditioning of bias or map, but it has none")
    given_N = torch.as_tensor(np.array(labels) if isinstance(labels, np.ndarray) else labels)  # a copy may be written
    require_labels(given_N, n, model.conditioning.num_classes)
    return given_N.to("cpu", torch.int64)
