"""Parallel coordinates: a line a trial through its keys to its objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from pixeltune.format import counted
from pixeltune.report.figures.chart import Chart, new_figure, plain, short
from pixeltune.report.figures.key_axes import KeyAxis, axes_of, has, measured
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status

_TITLE = "Parallel coordinates"
_ABSENT = -0.13
"""Height at which lines of trials pass that do not have a key."""

_GROUPS = (("best tenth", 0.1, "#440154"), ("to the best quarter", 0.25, "#31688E"), ("to the half", 0.5, "#35B779"))
_REST = ("worse half", "#C9CCD1")


def parallel_coordinates(snapshot: Snapshot) -> Chart:
    """Return parallel coordinates of finished trials; a pruned one's number is of fewer images, so it is left out.

    Lines of trials without a key pass below its axis. Plotly's own chart (which Optuna's uses) needs WebGL and leaves
    out every trial that lacks a key; here lines are grouped by rank, so that the best are on top and the legend can
    hide the others.
    """
    rows = sorted(measured(snapshot, (Status.FINISHED,)), key=lambda row: snapshot.sign * row[snapshot.objective])
    axes = axes_of(snapshot, rows)
    if len(rows) < 2 or len(axes) < 2:
        return Chart(name="parallel", title=_TITLE, missing=_why_none(snapshot, rows))
    low, high = rows[0][snapshot.objective], rows[-1][snapshot.objective]
    goal = KeyAxis(snapshot.objective, low=min(low, high), high=max(low, high))
    traces = [_trace(name, colour, group, axes, goal, width) for name, colour, group, width in reversed(_grouped(rows))]
    absent = any(not has(axis, row) for axis in axes for row in rows)
    figure = new_figure(
        traces,
        xaxis={
            "tickvals": list(range(len(axes) + 1)),
            "ticktext": [plain(axis.title) for axis in axes]
            + [plain(title_of(snapshot.objective).removeprefix("validation "))],
            "showgrid": False,
            "showline": False,
            "ticks": "",
            "range": [-0.35, len(axes) + 0.35],
            "side": "top",
            "fixedrange": True,
        },
        yaxis={"visible": False, "range": [(_ABSENT - 0.06) if absent else -0.04, 1.04], "fixedrange": True},
        legend={"y": -0.02, "yanchor": "top", "traceorder": "reversed"},
        margin={"l": 16, "r": 36, "t": 40, "b": 40},
    )
    for index, axis in enumerate(axes):
        _draw_axis(figure, index, axis.ticks(), any(not has(axis, row) for row in rows))
    _draw_axis(figure, len(axes), _goal_ticks(goal), False)
    caption = (
        f"{counted(len(rows), 'finished trial')}; the axis to the right is {title_of(snapshot.objective)}. "
        "A click in the legend hides a group."
    )
    if absent:
        caption += " A line below an axis is of a trial that has no such key."
    return Chart(
        name="parallel",
        title=_TITLE,
        caption=caption,
        figure=figure,
        height=500,
        is_wide=True,
        least_width=120 * (len(axes) + 1),
        alt=f"A line through {', '.join(axis.title for axis in axes)} for each of {len(rows)} finished trials.",
    )


def _why_none(snapshot: Snapshot, rows: Sequence[Row]) -> str:
    if len(snapshot.manifest.searched()) < 2:
        return "Fewer than two keys were searched."
    return f"They need two finished trials that differ in two keys; {counted(len(rows), 'trial')} finished."


def _grouped(rows: Sequence[Row]) -> list[tuple[str, str, Sequence[Row], float]]:
    """Return the rows, best first, cut into groups that are not empty; the best group has one trial at least."""
    groups: list[tuple[str, str, Sequence[Row], float]] = []
    begin = 0
    for name, share, colour in _GROUPS:
        end = max(begin, round(share * len(rows)), 1)
        if end > begin:
            groups.append((name, colour, rows[begin:end], 2.0 if end <= 10 else 1.3))
        begin = end
    if begin < len(rows):
        groups.append((_REST[0], _REST[1], rows[begin:], 1.0))
    return groups


def _trace(name: str, colour: str, rows: Sequence[Row], axes: Sequence[KeyAxis], goal: KeyAxis, width: float) -> Any:
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    for row in rows:
        xs += [*range(len(axes) + 1), None]
        ys += [
            *(axis.position(row[axis.key]) if has(axis, row) else _ABSENT for axis in axes),
            goal.position(row[goal.key]),
            None,
        ]
        label = f"{plain(row['trial'])}: {cell(goal.key, row[goal.key], is_bound=bool(row['is_bound']))}"
        texts += [*(f"{label}<br>{_value_text(axis, row)}" for axis in axes), label, None]
    return go.Scatter(
        x=xs[:-1],
        y=ys[:-1],
        text=texts[:-1],
        name=f"{name} ({len(rows):,})",
        mode="lines+markers",
        line={"color": colour, "width": width},
        marker={"size": 4},
        opacity=max(0.25, min(0.9, 60 / len(rows))),
        hovertemplate="%{text}<extra></extra>",
    )


def _value_text(axis: KeyAxis, row: Row) -> str:
    return plain(f"{axis.title} {cell(axis.key, row[axis.key]) if has(axis, row) else 'is not there'}")


def _goal_ticks(goal: KeyAxis) -> list[tuple[float, str]]:
    marks = [goal.low + (goal.high - goal.low) * step / 4 for step in range(5)] if goal.high > goal.low else [goal.low]
    return [(goal.position(mark), cell(goal.key, float(mark)) if mark < 1000 else short(mark)) for mark in marks]


def _draw_axis(figure: go.Figure, index: int, ticks: Sequence[tuple[float, str]], absent: bool) -> None:
    figure.add_shape(type="line", x0=index, x1=index, y0=0, y1=1, line={"color": "#555", "width": 1})
    marks = [*ticks, *([(_ABSENT, "none")] if absent else [])]
    for at, text in marks:
        figure.add_annotation(
            x=index,
            y=at,
            text=plain(text),
            showarrow=False,
            xanchor="left",
            xshift=5,
            font={"size": 11, "color": "#333"},
            bgcolor="rgba(255,255,255,0.85)",
            borderpad=0,
        )
