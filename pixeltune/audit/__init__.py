"""The gate before training: a model that leaks, or does not sum to one, would win the search.

Two networks are examined, in float64 and eval mode (batch norm in train mode leaks by itself).
- A narrow one of the same classes at 8×8 (in tiles of at least 4×4): its full Jacobian, every position and colour.
  Exact, but it speaks for the classes, not for this instance.
- The real one, at its real shape and weights: everything from a cut of `order()` on is changed, and θ up to the cut
  must stay. 32 cuts, an image each.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch

from pixeltune.audit.cuts import check_cuts
from pixeltune.audit.jacobian import check_jacobian, narrow_twin
from pixeltune.audit.normalisation import check_normalisation
from pixeltune.audit.receptive_field import receptive_field
from pixeltune.audit.sites import device_of
from pixeltune.audit.structure import narrow_key, structure
from pixeltune.models import DensityModel

__all__ = ["AuditReport", "audit"]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What a passed audit found.

    receptive_rows, receptive_cols: the box of pixels that the bottom row's θ depend on, own row and column included;
        the image limits it to H and 2W − 1. Where the image is split, in pixels of a tile, and any tile counts.
    blind_spot: past pixels inside that box that are never seen.
    max_change: largest change of θ, relative to max(1, |θ|), where it must not change (rounding, or exactly zero).
    max_mass_error: largest distance of a sum of probabilities from one.
    seconds: what this audit took; near zero where `cached`: the same structure has passed before in this process.
    """

    receptive_rows: int
    receptive_cols: int
    blind_spot: int
    max_change: float
    max_mass_error: float
    seconds: float
    cached: bool


def audit(model: DensityModel) -> AuditReport:
    """Examine causality, normalisation and receptive field; the model is left as it was.

    Raises AuditError, which names the offending pair of sub-pixels, or the colour whose levels do not sum to one.
    """
    start = time.perf_counter()
    with torch.inference_mode(False), torch.autocast(device_of(model).type, enabled=False):
        narrow = narrow_key(model)
        if narrow not in _passed_narrow:
            check_jacobian(narrow_twin(model))
            _passed_narrow.add(narrow)
        key = structure(model)
        cached = key in _passed
        if not cached:
            _passed[key] = _examine(model)
    return replace(_passed[key], seconds=time.perf_counter() - start, cached=cached)


_passed_narrow: set[Hashable] = set()
_passed: dict[Hashable, AuditReport] = {}


def _examine(model: DensityModel) -> AuditReport:
    twin = copy.deepcopy(model).double().eval().requires_grad_(False)
    max_change = check_cuts(twin)
    max_mass_error = check_normalisation(twin)
    rows, cols, blind_spot = receptive_field(twin)
    return AuditReport(
        receptive_rows=rows,
        receptive_cols=cols,
        blind_spot=blind_spot,
        max_change=max_change,
        max_mass_error=max_mass_error,
        seconds=0.0,
        cached=False,
    )
