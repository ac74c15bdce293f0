"""How often intervals call two equal configurations different: python benchmarks/final_intervals.py

Both noises of a difference are drawn as they are in a final with nothing that belongs to a seed and an image together:
variances over the seeds of two configurations, the second's a share of the first's, and over 300 images, a multiple of
it. Printed: the largest rate over all shares and multiples, in multiples of the level, which it should not exceed, and
the smallest, which costs power. Needs scipy, which comes with scikit-learn.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

_PAIRS, _IMAGES = 40_000, 300
_IMAGE_SHARES = (0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 10.0)
_SEED_SHARES = (1.0, 0.1)


def rates(rng: np.random.Generator, *, seeds: int, level: float, image: float, other: float) -> tuple[float, float]:
    """Of Satterthwaite's interval and of Banerjee's, in multiples of the level."""
    found = [
        variance * rng.chisquare(freedom, _PAIRS) / freedom
        for variance, freedom in ((1.0, seeds - 1), (other, seeds - 1), (image, _IMAGES - 1))
    ]
    apart = np.abs(rng.normal(size=_PAIRS)) * np.sqrt(1.0 + other + image)
    freedoms = (seeds - 1, seeds - 1, _IMAGES - 1)
    total = sum(found)
    freedom = total**2 / sum(part**2 / one for part, one in zip(found, freedoms, strict=True))
    satterthwaite = stats.t.ppf(1 - level / 2, freedom) * np.sqrt(total)
    quantiles = [stats.t.ppf(1 - level / 2, one) for one in freedoms]
    banerjee = np.sqrt(sum(quantile**2 * part for quantile, part in zip(quantiles, found, strict=True)))
    return float(np.mean(apart > satterthwaite)) / level, float(np.mean(apart > banerjee)) / level


def main() -> None:
    """Print a Markdown table."""
    rng = np.random.default_rng(0)
    print("| level | seeds | Satterthwaite | Banerjee |\n|---|---|---|---|")
    for level, pairs in ((0.05, 1), (0.05 / 3, 3), (0.05 / 10, 10)):
        for seeds in (2, 3, 5):
            cells = [
                rates(rng, seeds=seeds, level=level, image=image, other=other)
                for image in _IMAGE_SHARES
                for other in _SEED_SHARES
            ]
            ranges = [f"{min(column):.2f} to {max(column):.2f}" for column in zip(*cells, strict=True)]
            print(f"| 5% over {pairs} pairs | {seeds} | {ranges[0]} | {ranges[1]} |")


if __name__ == "__main__":
    main()
