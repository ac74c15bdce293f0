"""Sums over the steps since a report, kept on the device: to look at a number there, the host waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.errors import DivergedError


class Tally:
    """Sums over steps, in float64, and the first step whose gradient was not finite.

    From that step on `skip` makes the optimiser take no step, so that the weights stay those before it, whenever
    the host comes to look.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._first_bad = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64, device=device)
        self.skip = torch.zeros((), device=device, dtype=torch.float32)

    def add(self, nats_B: Tensor, norm: Tensor, step: int) -> None:
        """Add one step's nats of each image, and the norm of its gradient, the same on all workers."""
        nats_B, norm = nats_B.detach().double(), norm.detach().double()
        self._sums += torch.stack([nats_B.sum(), norm])
        is_bad = ~norm.isfinite()
        is_first = is_bad & (self._first_bad[0] < 0)
        this = torch.stack([torch.full_like(norm, step), norm, nats_B.mean()])
        self._first_bad = torch.where(is_first, this, self._first_bad)
        self.skip = torch.maximum(self.skip, is_bad.float())

    def require_finite(self, batch_size: int) -> None:
        """Raise DivergedError that names the first step that was not finite; the host waits for the device."""
        step, norm, nats = self._first_bad.tolist()
        if step >= 0:
            raise DivergedError(
                f"the gradient must be finite, but at step {step:.0f} ({step * batch_size:.0f} images) its norm is "
                f"{norm} with a loss of {nats:.4g} nats per image; lower `optim.lr` or set `optim.clip`"
            )

    @property
    def nats(self) -> Tensor:
        """Return the sum of nats over images, of this worker."""
        return self._sums[0].clone()

    @property
    def norms(self) -> float:
        """Return the sum of the gradient's norms."""
        return self._sums[1].item()

    def go_on_from(self, nats: float, norms: float) -> None:
        """Begin with these sums in place of zeros."""
        self._sums += self._sums.new_tensor([nats, norms])

    def mean_norm(self, steps: int) -> float:
        """Return the mean norm of the gradient."""
        return self.norms / steps
