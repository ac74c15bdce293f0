"""The gate before training, and the check of what training made: a model that leaks would win the search.

Before training two networks are examined, in float64 and eval mode (batch norm in train mode leaks by itself).
- A narrow one of the same classes at 8×8 (in tiles of at least 4×4): its full Jacobian, every position and colour.
  Exact, but it speaks for the classes, not for this instance.
- The real one, at its real shape and weights: everything from a cut of `order()` on is changed, and θ up to the cut
  must stay. 32 cuts, an image each.
In both, parameters that are zero are given other values, and all classes (or 16 of them) and no label take turns.
All that only training, float32 or a batch brings about is left to `check_trained`, at the weights of record.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch

from pixeltune.audit.cuts import NUM_CUTS, check_cuts, require_effect
from pixeltune.audit.jacobian import check_jacobian, narrow_twin
from pixeltune.audit.normalisation import check_normalisation
from pixeltune.audit.receptive_field import receptive_field
from pixeltune.audit.sites import device_of, open_zeros
from pixeltune.audit.structure import narrow_key, structure
from pixeltune.audit.trained import check_trained
from pixeltune.models import DensityModel

__all__ = ["NUM_CUTS", "AuditReport", "audit", "check_trained"]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The findings of a passed audit.

    Attributes:
        receptive_rows: Rows of the box of pixels that the bottom row's θ depend on, own row included; at most H. Where
            the image is split, in pixels of a tile, and any tile counts.
        receptive_cols: Its columns, own column included; at most 2W − 1.
        blind_spot: Past pixels inside that box that are never seen.
        max_change: Largest change of θ, relative to max(1, |θ|), where it must not change (rounding, or exactly zero).
        max_mass_error: Largest distance of a sum of probabilities from one.
        seconds: What this audit took; near zero where `cached`.
        cached: Whether the same structure has passed before in this process.
    """

    receptive_rows: int
    receptive_cols: int
    blind_spot: int
    max_change: float
    max_mass_error: float
    seconds: float
    cached: bool


def audit(model: DensityModel) -> AuditReport:
    """Examine causality, normalisation and receptive field.

    Args:
        model: Any model, on any device; it is left as it was.

    Raises:
        AuditError: Names the offending pair of sub-pixels, or the colour whose levels do not sum to one.
    """
    start = time.perf_counter()
    with torch.inference_mode(False), torch.autocast(device_of(model).type, enabled=False):
        narrow, key = narrow_key(model), structure(model)
        if narrow is None or narrow not in _passed_narrow:
            check_jacobian(narrow_twin(model))
            if narrow is not None:
                _passed_narrow.add(narrow)
        known = None if key is None else _passed.get(key)
        report = known or _examine(model)
        if key is not None:
            _passed[key] = report
    return replace(report, seconds=time.perf_counter() - start, cached=known is not None)


_passed_narrow: set[Hashable] = set()
_passed: dict[Hashable, AuditReport] = {}


def _examine(model: DensityModel) -> AuditReport:
    twin = copy.deepcopy(model).double().eval().requires_grad_(False)
    open_zeros(twin)
    result = check_cuts(twin)
    require_effect(twin, result)
    max_mass_error = check_normalisation(twin)
    rows, cols, blind_spot = receptive_field(twin)
    return AuditReport(
        receptive_rows=rows,
        receptive_cols=cols,
        blind_spot=blind_spot,
        max_change=result.max_change,
        max_mass_error=max_mass_error,
        seconds=0.0,
        cached=False,
    )
