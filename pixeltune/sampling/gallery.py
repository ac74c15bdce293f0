"""What one looks at of a model: a picture of samples and completions, under fixed noise, so that models compare.

Legend of shapes: N images, C colours, H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from pixeltune.data import ImageSet
from pixeltune.models import DensityModel
from pixeltune.sampling.grid import save_grid
from pixeltune.sampling.images import How, complete, sample, why_not_conditional

GALLERY_SIDE = 12
NOT_CONDITIONAL = "not a conditional sample"
_DRAWS = 6
_SHOWN_SIDE = 64
"""Images smaller than this are enlarged, pixel by pixel."""


@dataclass(frozen=True)
class Gallery:
    """Images (N, C, H, W) of integer levels, and how `save_grid` shows them."""

    images_NCHW: Tensor
    levels: int
    columns: int | None = None
    caption: str = ""
    hidden_NHW: Tensor | None = None
    gap_after: int | None = None

    def save(self, location: str | Path) -> bytes:
        """Write a PNG; its bytes."""
        zoom = max(1, _SHOWN_SIDE // max(self.images_NCHW.shape[2:]))
        return save_grid(
            self.images_NCHW,
            location,
            self.levels,
            self.columns,
            zoom,
            hidden_NHW=self.hidden_NHW,
            gap_after=self.gap_after,
            caption=self.caption,
        )


def labels_in_turn(model: DensityModel, n: int) -> list[int] | None:
    """Return n labels, the classes of a conditional model in turn; None for another model."""
    return None if model.conditioning is None else [index % model.conditioning.num_classes for index in range(n)]


def upper_half(model: DensityModel) -> Tensor:
    """Return (H, W) bool: True in the upper half."""
    rows_H = torch.arange(model.form.height) < model.form.height // 2
    return rows_H[:, None].repeat(1, model.form.width)


def gallery(model: DensityModel, examples: ImageSet | None, *, title: str = "", **how: Unpack[How]) -> Gallery:
    """Draw 6 rows of 12 samples, and below them 12 examples, a column each.

    A column has the example, its upper half, which is given, and 6 completions. Samples of a conditional model take the
    classes in turn. Examples are the first of the set, completed with their labels. They are left out, and the caption
    says why, where there are fewer than 12 or completions would not be exact. title: begins the caption. how: see
    `sample`.
    """
    count = GALLERY_SIDE * _DRAWS
    drawn = sample(model, count, labels=labels_in_turn(model, count), **how)
    known, few = upper_half(model), examples is None or len(examples) < GALLERY_SIDE
    classes = "" if model.conditioning is None else " of the classes in turn"
    words = f"{_titled(title)}{count} samples{classes}{_tempered(how)}"
    why_not = f"there are fewer than {GALLERY_SIDE} examples" if few else why_not_conditional(model, known)
    if why_not is not None or examples is None:
        return Gallery(drawn, model.form.levels, GALLERY_SIDE, f"{words}; no completions: {why_not}")
    images, label_N = _chosen(model, examples, torch.arange(GALLERY_SIDE).repeat(_DRAWS))
    completed = complete(model, images, known, labels=label_N, **how)
    original = images[:GALLERY_SIDE]
    hidden = torch.zeros(count + (2 + _DRAWS) * GALLERY_SIDE, *known.shape, dtype=torch.bool)
    hidden[count + GALLERY_SIDE : count + 2 * GALLERY_SIDE] = ~known
    condition = "" if label_N is None else " with its class"
    column = f"the original, the upper half, which is given{condition}, {_DRAWS} completions"
    caption = f"{words}; below, {GALLERY_SIDE} images, a column each: {column}"
    shown = torch.cat([drawn, original, original, completed])
    return Gallery(shown, model.form.levels, GALLERY_SIDE, caption, hidden, gap_after=_DRAWS)


def completions(
    model: DensityModel,
    examples: ImageSet,
    known_HW: Tensor,
    *,
    draws: int = _DRAWS,
    clamp: bool = False,
    title: str = "",
    **how: Unpack[How],
) -> Gallery:
    """Draw a row an example: the example itself, what is given of it, and `draws` completions with its label.

    ConfigError where completions would not be exact, unless `clamp`; the caption then says what they are not. title:
    begins the caption. how: see `complete`.
    """
    count = len(examples)
    images, label_N = _chosen(model, examples, torch.arange(count).repeat_interleave(draws))
    drawn = complete(model, images, known_HW, clamp=clamp, labels=label_N, **how)
    original = images[::draws, None]
    rows = torch.cat([original, original, drawn.unflatten(0, (count, draws))], dim=1)
    hidden = torch.zeros(count, draws + 2, *known_HW.shape, dtype=torch.bool)
    hidden[:, 1] = ~known_HW
    caption = f"{_titled(title)}the original, what is given, {draws} completions{_tempered(how)}"
    if why_not_conditional(model, known_HW) is not None:
        caption = f"{NOT_CONDITIONAL}: {caption}"
    return Gallery(rows.flatten(0, 1), model.form.levels, draws + 2, caption, hidden.flatten(0, 1))


def _chosen(model: DensityModel, examples: ImageSet, index_N: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return levels and labels of the examples of these indices; no labels where model or examples have none."""
    index = index_N.numpy()
    labels_N = None if model.conditioning is None else examples.labels_N
    return torch.from_numpy(examples.pixels_NCHW[index]), None if labels_N is None else torch.from_numpy(
        labels_N[index]
    )


def _titled(title: str) -> str:
    return f"{title}: " if title else ""


def _tempered(how: How) -> str:
    temperature = how.get("temperature", 1.0)
    return "" if temperature == 1 else f" at temperature {temperature:g}, not of the model's own distribution"
