"""Shared parts of all figures: Chart, colours that colour-blind readers can distinguish, fonts, axes.

Only scatter, bar and contour traces are used: they are drawn as SVG, need no WebGL, and print sharply.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pixeltune.results.schema import Status

STATUS_COLOURS: Mapping[str, str] = {
    Status.FINISHED: "#0072B2",
    Status.PRUNED: "#E69F00",
    Status.STOPPED: "#56B4E9",
    Status.RUNNING: "#009E73",
    Status.INTERRUPTED: "#8A8A8A",
    Status.DIVERGED: "#D55E00",
    Status.OOM: "#CC79A7",
    Status.FAILED: "#5B1A18",
    Status.REJECTED: "#000000",
}
"""Colours by status, those of Okabe and Ito (2008) as far as they go; in the order of a legend."""

BEST_COLOURS = ("#B2182B", "#762A83", "#1B7837", "#8C510A", "#2166AC")
"""Colours of the best trials, in order, which are drawn one by one."""

SCALE = "Viridis"
"""Colour scale of values: it prints in grey, and its order needs no legend."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Arial, sans-serif"
_AXIS = {
    "showline": True,
    "linecolor": "#777",
    "gridcolor": "#e6e6e6",
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#777",
    "automargin": True,
    "exponentformat": "power",
    "title": {"standoff": 8, "font": {"size": 13}},
}
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 13, "color": "#222"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 56, "r": 16, "t": 12, "b": 44},
        "colorway": list(STATUS_COLOURS.values()),
        "hoverlabel": {"align": "left", "font": {"size": 12}},
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "hovermode": "closest",
    }
)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure with its texts, or the reason why there is none.

    Attributes:
        name: Name of its element and of its PNG.
        title: Its heading.
        caption: What it shows, and what it leaves out.
        figure: None where `missing` says why.
        height: In pixels.
        is_wide: Whether it takes the whole width of the page.
        least_width: Width in pixels below which it is scrolled.
        alt: What it shows, for readers who cannot see it.
    """

    name: str
    title: str
    caption: str = ""
    figure: go.Figure | None = None
    missing: str = ""
    height: int = 420
    is_wide: bool = False
    least_width: int = 0
    alt: str = ""


def new_figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """Return a figure in the style of the report; its size is set where it is drawn."""
    return go.Figure(list(traces), go.Layout(template=_TEMPLATE, **layout))


def plain(text: object) -> str:
    """Return text escaped for plotly, which interprets it as HTML."""
    return html.escape(str(text), quote=False)


def log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Return the axis settings of positive values: logarithmic, with more ticks a power of ten where these are few."""
    low, high = min(values), max(values)
    decades = math.log10(high / low) if low > 0 else 0.0
    steps = (1, 1.5, 2, 3, 5, 7) if decades < 0.9 else (1, 2, 5) if decades < 2.5 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    if not any(low <= tick <= high for tick in ticks):
        ticks = [low, high]
    padding = 0.04 * max(decades, 0.1)
    return {
        "type": "log",
        "tickangle": 0,
        "tickvals": ticks,
        "ticktext": [short(tick) for tick in ticks],
        "range": [math.log10(low) - padding, math.log10(high) + padding],
    }


def short(value: float) -> str:
    """Return the text of a tick: 16,000 is 16k, 3,200,000 is 3.2M, 0.0005 stays."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")
