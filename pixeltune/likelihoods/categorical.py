"""A softmax over the K levels (van den Oord et al. 2016, arXiv 1601.06759, §3.3).

On a pixel-causal network the logits of a colour are linear in the earlier colours of its pixel
(Salimans et al. 2017, arXiv 1701.05517, §3.4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.likelihoods.base import Likelihood, pair_index, upcast


class Categorical(Likelihood):
    """A softmax over the levels: logits_jk = b_jk, plus Σ_{i<j} a_jik x̃_i where joint.

    θ holds the b of each colour, then the a of each pair.

    References:
        van den Oord et al. 2016, arXiv 1601.06759, §3.3. Joint: Salimans et al. 2017, arXiv 1701.05517, §3.4.1.
    """

    @property
    def num_logits(self) -> int:
        """Return the number of free logits per distribution; a subclass may fix some."""
        return self.levels

    @property
    def num_params(self) -> int:
        """Return P: logits of one colour, or those of all colours and then of all pairs."""
        return self.num_logits * (self.channels + self.num_pairs if self.is_joint else 1)

    @property
    def num_noise(self) -> int:
        """Return N: one uniform a sub-pixel."""
        return self.channels

    def log_prob(self, theta: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return nats (B,): log-softmax at the levels of x."""
        theta, x_BCHW = upcast(theta), x_BCHW.long()
        nats_B = theta.new_zeros(theta.shape[0])
        for j in range(self.channels):
            log_probs_BKHW = self._logits(theta, x_BCHW[:, :j]).log_softmax(1)
            nats_B = nats_B + log_probs_BKHW.gather(1, x_BCHW[:, j : j + 1]).sum((1, 2, 3))
        return nats_B

    def table(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        """Return the softmax (B, K, H, W) of colour j."""
        return self._logits(upcast(theta), earlier_BjHW).softmax(1)

    def _logits(self, theta: Tensor, earlier_BjHW: Tensor) -> Tensor:
        """Return the logits (B, K, H, W) of colour j."""
        j = earlier_BjHW.shape[1]
        if not self.is_joint:
            return theta[:, j]
        b_and_a = torch.unflatten(theta, 1, (self.channels + self.num_pairs, self.num_logits))
        logits_BKHW: Tensor = b_and_a[:, j]
        for i, x_BHW in enumerate(self.scale(earlier_BjHW, theta.dtype).unbind(1)):
            logits_BKHW = logits_BKHW + b_and_a[:, self.channels + pair_index(j, i)] * x_BHW[:, None]
        return logits_BKHW
