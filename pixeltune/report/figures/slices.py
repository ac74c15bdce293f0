"""Slices: the objective against one key, and smoothed over two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pixeltune.format import counted
from pixeltune.report.figures.chart import SCALE, STATUS_COLOURS, Chart, new_figure, plain
from pixeltune.report.figures.importances import importances
from pixeltune.report.figures.key_axes import KeyAxis, axes_of, has, measured
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status

_FEWEST_FOR_CONTOUR = 10
_PAIRS = 3
_GRID = 36


def slice_charts(snapshot: Snapshot) -> list[Chart]:
    """Return a chart for each key in which ranked trials differ, the most important first."""
    rows = measured(snapshot)
    axes = _by_importance(snapshot, axes_of(snapshot, rows))
    if not axes:
        why = (
            "No key was searched."
            if not snapshot.manifest.searched()
            else "They need two trials with a result that differ in a key."
        )
        return [Chart(name="slices", title="Slices", missing=why)]
    edge = _upper_edge(snapshot, rows)
    return [_slice(snapshot, axis, [row for row in rows if has(axis, row)], edge) for axis in axes]


def contour_charts(snapshot: Snapshot) -> list[Chart]:
    """Return up to three charts, one for each pair of the most important keys that are numbers."""
    rows = measured(snapshot, (Status.FINISHED,))
    axes = [axis for axis in _by_importance(snapshot, axes_of(snapshot, rows)) if not axis.choices]
    pairs = list(combinations(axes[:3], 2))[:_PAIRS]
    charts = [_contour(snapshot, across, up, rows) for across, up in pairs]
    drawn = [chart for chart in charts if chart.figure is not None]
    if drawn:
        return drawn
    why = (
        f"They need {_FEWEST_FOR_CONTOUR} finished trials that differ in two keys which are numbers; "
        f"{counted(len(rows), 'trial')} finished, with {counted(len(axes), 'such key')}."
    )
    return [Chart(name="contours", title="Contours", missing=why)]


def smooth(points_N2: np.ndarray, values_N: np.ndarray, grid: int) -> np.ndarray:
    """Return Gaussian means of the values over the unit square (Nadaraya 1964, Watson 1964).

    The result is (grid, grid), with rows along the second coordinate. The width is that of Scott's rule for points
    spread evenly; NaN where no point is within 1.5 widths.
    """
    width = math.sqrt(1 / 12) * len(points_N2) ** (-1 / 6)
    line = np.linspace(0.0, 1.0, grid)
    across, up = np.meshgrid(line, line)
    squares = (across[..., None] - points_N2[:, 0]) ** 2 + (up[..., None] - points_N2[:, 1]) ** 2
    weights = np.exp(-squares / (2 * width**2))
    sums = weights.sum(axis=-1)
    nearest = squares.min(axis=-1)
    means = (weights * values_N).sum(axis=-1) / np.maximum(sums, 1e-300)
    return np.where(nearest > (1.5 * width) ** 2, np.nan, means)


def _by_importance(snapshot: Snapshot, axes: Sequence[KeyAxis]) -> list[KeyAxis]:
    found = importances(snapshot)
    shares = found.shares if found else {}
    return sorted(axes, key=lambda axis: -shares.get(axis.key, 0.0))


def _upper_edge(snapshot: Snapshot, rows: Sequence[Row]) -> float | None:
    """Return the end of the axis of a figure that a few bad trials would flatten; None where there are none."""
    values = np.array([row[snapshot.objective] for row in rows], dtype=np.float64) * snapshot.sign
    middle, high = np.quantile(values, [0.5, 0.95])
    edge = high + 0.5 * (high - values.min())
    return float(edge) * snapshot.sign if values.max() > edge and high > middle else None


def _slice(snapshot: Snapshot, axis: KeyAxis, rows: Sequence[Row], edge: float | None) -> Chart:
    goal, sign = snapshot.objective, snapshot.sign
    traces = []
    for status in (Status.STOPPED, Status.PRUNED, Status.FINISHED):
        group = [row for row in rows if row["status"] == status]
        if group:
            traces.append(_points(group, axis, goal, str(status)))
    values = [row[goal] for row in rows if edge is None or sign * row[goal] <= sign * edge]
    padding = 0.06 * (max(values) - min(values)) or 0.05
    figure = new_figure(
        traces,
        xaxis=axis.layout(),
        yaxis={"title": {"text": plain(title_of(goal))}, "range": [min(values) - padding, max(values) + padding]},
    )
    caption = []
    if len(rows) > len(values):
        caption.append(f"{counted(len(rows) - len(values), 'trial')} beyond the edge; double-click shows all.")
    missing = len(measured(snapshot)) - len(rows)
    if missing:
        caption.append(f"{counted(missing, 'trial')} without this key.")
    return Chart(
        name=f"slice-{axis.key.replace('.', '-')}",
        title=axis.title,
        caption=" ".join(caption),
        figure=figure,
        height=310,
        alt=f"{title_of(goal)} of {counted(len(rows), 'trial')} against {axis.title}.",
    )


def _points(rows: Sequence[Row], axis: KeyAxis, goal: str, status: str) -> Any:
    is_whole = status == Status.FINISHED
    return go.Scatter(
        x=[axis.at(row[axis.key], index) for index, row in enumerate(rows)],
        y=[row[goal] for row in rows],
        text=[f"{_label(row, goal)}<br>{plain(axis.title)} {plain(cell(axis.key, row[axis.key]))}" for row in rows],
        name=status if is_whole else f"{status}, at {'its rung' if status == Status.PRUNED else 'its last report'}",
        mode="markers",
        marker={
            "color": STATUS_COLOURS[status],
            "size": 7,
            "symbol": "circle" if is_whole else "circle-open",
            "opacity": 0.75 if len(rows) < 200 else 0.45,
        },
        hovertemplate="%{text}<extra></extra>",
    )


def _contour(snapshot: Snapshot, across: KeyAxis, up: KeyAxis, rows: Sequence[Row]) -> Chart:
    goal = snapshot.objective
    both = [row for row in rows if has(across, row) and has(up, row)]
    title = f"{across.title} × {up.title}"
    name = f"contour-{across.key.replace('.', '-')}-{up.key.replace('.', '-')}"
    if len(both) < _FEWEST_FOR_CONTOUR:
        return Chart(name=name, title=title, missing="too few trials")
    points = np.array([[axis.position(row[axis.key]) for axis in (across, up)] for row in both])
    values = np.array([row[goal] for row in both], dtype=np.float64)
    means = smooth(points, values, _GRID)
    lines = [_line(axis) for axis in (across, up)]
    surface = go.Contour(
        x=lines[0],
        y=lines[1],
        z=[[None if math.isnan(mean) else mean for mean in line] for line in means.tolist()],
        colorscale=SCALE,
        reversescale=snapshot.sign > 0,
        contours={"coloring": "heatmap", "showlines": True},
        line={"width": 0.6, "color": "rgba(255,255,255,0.6)"},
        ncontours=12,
        connectgaps=False,
        colorbar={
            "title": {"text": plain(title_of(goal)), "side": "right", "font": {"size": 13}},
            "thickness": 12,
            "outlinewidth": 0,
        },
        hoverinfo="skip",
    )
    dots = go.Scatter(
        x=[row[across.key] for row in both],
        y=[row[up.key] for row in both],
        mode="markers",
        marker={"size": 6, "color": "white", "line": {"color": "black", "width": 1}},
        opacity=0.8 if len(both) < 200 else 0.45,
        text=[_label(row, goal) for row in both],
        hovertemplate="%{text}<extra></extra>",
    )
    figure = new_figure([surface, dots], xaxis=across.layout(), yaxis=up.layout(), showlegend=False)
    trials = counted(len(both), "finished trial")
    caption = f"Smoothed means of {trials}; other keys differ too. White: no trial near."
    return Chart(
        name=name,
        title=title,
        figure=figure,
        height=360,
        caption=caption,
        alt=f"{title_of(goal)} over {across.title} and {up.title}.",
    )


def _label(row: Row, goal: str) -> str:
    return f"{plain(row['trial'])}: {cell(goal, row[goal], is_bound=bool(row['is_bound']))}"


def _line(axis: KeyAxis) -> list[float]:
    line = np.linspace(0.0, 1.0, _GRID)
    if axis.is_log:
        return [float(value) for value in np.exp(np.log(axis.low) + line * (np.log(axis.high) - np.log(axis.low)))]
    return [float(value) for value in axis.low + line * (axis.high - axis.low)]
