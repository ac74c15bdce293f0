"""The likelihoods once more, as loops over plain numbers: slow, and read off the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pixeltune.likelihoods import Bernoulli, Likelihood, LogisticMixture

MIN_LOG_SCALE = -7.0


def slow_nats(likelihood: Likelihood, theta: Sequence[float], x: Sequence[int]) -> float:
    """log p of the levels of one pixel, or of one colour of it, where each colour has a distribution of its own.

    theta: the P numbers that belong to it. x: its levels; tile after tile where the likelihood couples tiles.
    """
    if isinstance(likelihood, LogisticMixture):
        return mixture_nats(theta, x, likelihood.levels, mixtures=likelihood.mixtures, tiles=likelihood.tiles)
    num_free = 1 if isinstance(likelihood, Bernoulli) else likelihood.levels
    return categorical_nats(theta, x, likelihood.levels, num_free=num_free)


def categorical_nats(theta: Sequence[float], x: Sequence[int], K: int, *, num_free: int) -> float:
    """Σ_j log softmax_k(b_jk + Σ_{i<j} a_jik x̃_i) at k = x_j. num_free: logits of K that are not fixed at zero."""
    C, nats = len(x), 0.0
    for j in range(C):
        logits = [0.0] * (K - num_free)
        for k in range(num_free):
            logit = theta[j * num_free + k]
            for i in range(j):
                pair = C + j * (j - 1) // 2 + i
                logit += theta[pair * num_free + k] * _scaled(x[i], K)
            logits.append(logit)
        nats += logits[x[j]] - math.log(sum(math.exp(logit) for logit in logits))
    return nats


def mixture_nats(theta: Sequence[float], x: Sequence[int], K: int, *, mixtures: int, tiles: int = 1) -> float:
    """log Σ_m π_m Π_t Π_j (mass of the bin of x_tj under logistic m of tile t)."""
    M, n, C = mixtures, len(x), len(x) // tiles
    num_pairs = C * (C - 1) // 2
    weights = [math.exp(logit) for logit in theta[:M]]
    total = 0.0
    for m in range(M):
        product = weights[m] / sum(weights)
        for t in range(tiles):
            for j in range(C):
                here = t * C + j
                mean, log_scale = theta[M + here * M + m], max(theta[M + (n + here) * M + m], MIN_LOG_SCALE)
                for i in range(j):
                    pair = t * num_pairs + j * (j - 1) // 2 + i
                    mean += math.tanh(theta[M + (2 * n + pair) * M + m]) * _scaled(x[t * C + i], K)
                product *= _mass(x[here], K, mean, math.exp(log_scale))
        total += product
    return math.log(total)


def _mass(level: int, K: int, mean: float, scale: float) -> float:
    """Of a logistic between the ends of the level's bin; the outer bins reach to infinity."""
    upper = math.inf if level == K - 1 else (_scaled(level, K) + 1 / (K - 1) - mean) / scale
    lower = -math.inf if level == 0 else (_scaled(level, K) - 1 / (K - 1) - mean) / scale
    if lower > 0:  # the mirror image, whose small numbers keep their digits
        upper, lower = -lower, -upper
    return _sigmoid(upper) - _sigmoid(lower)


def _sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t)) if t > -700 else 0.0


def _scaled(level: int, K: int) -> float:
    """0…K−1 to [−1, 1]."""
    return 2 * level / (K - 1) - 1
