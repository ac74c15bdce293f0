"""What every method of sampling is given: from which noise a batch is drawn, how, and which of it is given.

Legend of shapes: B batch, N noise numbers a pixel, C colours, H×W the image, h×w as `DensityModel.noise` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Advance = Callable[[int], None]
"""Called again and again with how many more of the network calls of `model.order()` are done."""


def no_progress(_calls: int) -> None:
    """Do nothing: the default progress callback."""


@dataclass(frozen=True)
class Observed:
    """Sub-pixels that are not drawn. x_BCHW: levels (int64), which count where known_CHW (bool) says so."""

    x_BCHW: Tensor
    known_CHW: Tensor

    def put_into(self, drawn_BCHW: Tensor) -> Tensor:
        """Return the drawn levels, but for those that are known."""
        return torch.where(self.known_CHW, self.x_BCHW, drawn_BCHW)


@dataclass(frozen=True)
class SampleRequest:
    """A batch to draw.

    noise_BNhw: uniforms. s: features of label and latent. temperature: see `Likelihood.sample`. given: what is known
    of the images; it is put in place of what was drawn there.
    """

    noise_BNhw: Tensor
    s: Tensor | None = None
    temperature: float = 1.0
    given: Observed | None = None
    advance: Advance = no_progress

    def __len__(self) -> int:
        return len(self.noise_BNhw)

    def of(self, indices: Tensor) -> SampleRequest:
        """Return the same for some of the images."""
        return replace(
            self,
            noise_BNhw=self.noise_BNhw[indices],
            s=None if self.s is None else self.s[indices],
            given=None if self.given is None else replace(self.given, x_BCHW=self.given.x_BCHW[indices]),
        )
