"""Which earlier pixels a pixel sees."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeltune.audit.sites import conditions_of, device_of, fixed_generator, gradients, site_order
from pixeltune.models import DensityModel
from pixeltune.models.split import to_tiles


def receptive_field(model: DensityModel) -> tuple[int, int, int]:
    """Return rows, columns and blind spot as AuditReport defines them.

    Gradients from the right and the left end of the bottom row, side by side, show every offset the image has room for.
    """
    H, W = _tile_shape(model)
    right_end_HW, left_end_HW = (_pixels_seen_from(model, col) for col in (W - 1, 0))
    # Column W − 1 of the offsets is the pixel's own; the right end shows what is left of it.
    seen = torch.cat([right_end_HW, left_end_HW[:, 1:]], dim=1)
    seen[:, W - 1] |= left_end_HW[:, 0]
    rows = H - _first(seen.any(1))
    left, right = W - 1 - _first(seen.any(0)), W - 1 - _first(seen.any(0).flip(0))
    box = seen[H - rows :, W - 1 - left : W + right]
    return rows, left + 1 + right, int((~box).sum()) - right


def _pixels_seen_from(model: DensityModel, col: int, *, num_images: int = 4) -> Tensor:
    """Return (H, W) of a tile: the pixels that matter to θ at a column of the bottom row, in any of some random images.

    The pixel itself is marked too. The row is the last tile's, and a pixel that matters may be in any tile.
    """
    H, W = _tile_shape(model)
    site = len(site_order(model)) - W + col
    x_BCHW = 2 * torch.rand((num_images, *model.form.shape), generator=fixed_generator(), dtype=torch.float64) - 1
    sites = torch.full((num_images,), site)
    seen_BCHW = (gradients(model, x_BCHW.to(device_of(model)), sites, conditions_of(model, num_images)) != 0).cpu()
    seen_HW = to_tiles(seen_BCHW, model.split.s).flatten(0, 2).any(0)
    seen_HW[H - 1, col] = True
    return seen_HW


def _tile_shape(model: DensityModel) -> tuple[int, int]:
    return model.form.height // model.split.s, model.form.width // model.split.s


def _first(is_seen: Tensor) -> int:
    return int(is_seen.int().argmax())
