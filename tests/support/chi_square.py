"""Pearson's test of frequencies."""

from __future__ import annotations

import torch
from scipy import stats


def chi_square_p(seen: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how probable a misfit as large as this one is.

    Outcomes expected less than five times count as one, together with the next rarest where they stay below five and
    two others are left to compare.
    """
    order = expected.argsort()
    seen, expected = seen[order], expected[order]
    rare = expected < 5
    if 0 < expected[rare].sum() < 5 and len(expected) - rare.sum() > 2:
        rare |= expected.cumsum(0) - expected < 5
    seen, expected = (torch.cat([n[~rare].double(), n[rare].double().sum()[None]]) for n in (seen, expected))
    terms = (seen - expected).square() / expected.clamp(min=1e-9)
    return float(stats.chi2.sf(terms.sum().item(), len(terms) - 1))
