"""One logit a sub-pixel, for images of two levels."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.likelihoods.categorical import Categorical


class Bernoulli(Categorical):
    """The categorical of two levels whose first logit is fixed at zero, joint form included."""

    @property
    def num_logits(self) -> int:
        """Return 1: the logit of level 1."""
        return 1

    def _logits(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        logit_B1HW = super()._logits(theta, earlier_BjHW)
        return torch.cat([torch.zeros_like(logit_B1HW), logit_B1HW], dim=1)
