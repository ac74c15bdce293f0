"""Figures of a paper as PDF and SVG, drawn by matplotlib: learning curves as vectors, samples as embedded pixels.

The files hold no date, so that the same results give the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pixeltune.results.parquet_io import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "svg")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_WIDTH = 5.5
"""Inches: the width of the text of an article."""
_SHADES = 255


@dataclass(frozen=True)
class PlottedCurve:
    """A line of the figure.

    Attributes:
        name: What the legend calls it; curves of one name share an entry.
        group: Curves of one configuration have one colour.
        style: A line style of matplotlib.
        points: (images seen, bits/dim) in order.
    """

    name: str
    group: str
    style: str
    points: Sequence[tuple[int, float]]


def curves_of(trial: str, name: str, reports: Sequence[Row], split: str, style: str) -> PlottedCurve | None:
    """Return the curve of one split; None where no report has a number of it.

    Args:
        trial: The configuration, which decides the colour.
        name: The entry of the legend.
        reports: The reports of one run, by images seen.
        split: `train` or `valid`.
        style: A line style of matplotlib.
    """
    column = f"{split}_bits_per_dim"
    points = [
        (report["images_seen"], report[column])
        for report in reports
        if report[column] is not None and math.isfinite(report[column]) and report["images_seen"] > 0
    ]
    return PlottedCurve(name, trial, style, points) if points else None


def draw_curves(curves: Sequence[PlottedCurve], title: str) -> dict[str, bytes]:
    """Return the figure of bits/dim against training images seen, by format."""
    with _settings():
        figure = _figure(_WIDTH, 3.4)
        axes = figure.subplots()
        colours = dict(zip(dict.fromkeys(curve.group for curve in curves), _COLOURS * len(curves), strict=False))
        named: set[str] = set()
        for curve in curves:
            images, values = zip(*curve.points, strict=True)
            label = None if curve.name in named else curve.name
            named.add(curve.name)
            marker = "." if len(images) < 3 else None
            axes.plot(
                images,
                values,
                curve.style,
                color=colours[curve.group],
                linewidth=1.2,
                label=_plain(label),
                marker=marker,
            )
        axes.set_xlabel("training images seen")
        axes.set_ylabel("bits/dim")
        axes.set_title(_plain(title), fontsize=9)
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(fontsize=7, frameon=False)
        return _saved(figure)


def draw_samples(images_NCHW: np.ndarray, levels: int, title: str) -> dict[str, bytes]:
    """Return a square of images, by format; each pixel is stored once, as in the arrays.

    Args:
        images_NCHW: Levels 0…K−1. One channel is grey, three are RGB; of other numbers the first is shown.
        levels: K.
        title: Above the images.
    """
    sheet = _sheet(images_NCHW, levels)
    with _settings():
        side = _WIDTH * 0.75
        figure = _figure(side, side * sheet.shape[0] / sheet.shape[1] + 0.3)
        axes = figure.subplots()
        axes.imshow(sheet, interpolation="none", cmap="gray", vmin=0, vmax=_SHADES)
        axes.set_axis_off()
        axes.set_title(_plain(title), fontsize=8)
        return _saved(figure)


def _sheet(images_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Return the images with a white pixel between them: (rows, columns) or (rows, columns, 3) uint8."""
    shown = images_NCHW if images_NCHW.shape[1] == 3 else images_NCHW[:, :1]
    shades = np.round(shown.astype(np.float64) * (_SHADES / (levels - 1))).astype(np.uint8)
    count, channels, height, width = shades.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), _SHADES, dtype=np.uint8)
    for index, image_CHW in enumerate(shades):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
    return sheet if channels == 3 else sheet[..., 0]


def _settings() -> Any:
    """Set text as text in SVG, whole fonts in PDF, no LaTeX, and none of the user's own style."""
    import matplotlib as mpl

    settings: Any = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    settings |= {"svg.fonttype": "none", "svg.hashsalt": "pixeltune", "pdf.fonttype": 42}
    return mpl.rc_context(settings)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: Figure) -> dict[str, bytes]:
    contents = {}
    for kind in FORMATS:
        stream = io.BytesIO()
        dates = {"CreationDate": None} if kind == "pdf" else {"Date": None}
        figure.savefig(stream, format=kind, metadata=dates)
        contents[kind] = stream.getvalue()
    return contents


def _plain(text: str | None) -> str:
    """Return text in which a dollar sign begins no formula; None, and a leading underscore, hide a line's legend."""
    return "_hidden" if text is None else " ".join(text.replace("$", r"\$").split()).lstrip("_")
