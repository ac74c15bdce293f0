"""The cost of likelihood: fronts of two numbers at a time, and the trials that no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from pixeltune.format import counted
from pixeltune.report.figures.chart import STATUS_COLOURS, Chart, log_ticks, new_figure, plain
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.ranking import pareto_front
from pixeltune.results.schema import Status
from pixeltune.space.metrics import METRICS

_COSTS = ("sample_images_per_second", "num_parameters")
"""Numbers compared with the likelihood where a search has one objective."""


def front_charts(snapshot: Snapshot) -> list[Chart]:
    """Return the first objective against each other one; with a single objective, against the costs."""
    if snapshot.is_final:
        return []
    first, *others = snapshot.manifest.objectives
    others = others or [name for name in _COSTS if name != first]
    charts = [_chart(snapshot, first, other) for other in others]
    drawn = [chart for chart in charts if chart is not None]
    if drawn:
        return drawn
    what = " or ".join(title_of(name) for name in others)
    return [Chart(name="front", title="Front", missing=f"No two finished trials differ in {what}.")]


def _chart(snapshot: Snapshot, first: str, other: str) -> Chart | None:
    known = [row for row in snapshot.configurations if row[first] is not None and row[other] is not None]
    finished = [row for row in known if row["status"] == Status.FINISHED]
    if len({row[other] for row in finished}) < 2:
        return None
    objectives = snapshot.manifest.objectives if len(snapshot.manifest.objectives) > 1 else (first, other)
    best = pareto_front(snapshot.configurations, objectives, snapshot.manifest.constraints)
    beaten = "finished, beaten" + " or out of bounds" * bool(snapshot.manifest.constraints)
    traces = [
        _points(
            [row for row in known if row["status"] == Status.PRUNED],
            first,
            other,
            "pruned, at the rung reached",
            "circle-open",
            Status.PRUNED,
        ),
        _points(
            [row for row in known if row["status"] == Status.STOPPED],
            first,
            other,
            "stopped by hand",
            "circle-open",
            Status.STOPPED,
        ),
        _points([row for row in finished if row not in best], first, other, beaten, "circle", Status.FINISHED),
        _front(best, first, other, stepped=len(objectives) == 2),
    ]
    values = [row[other] for row in known]
    spread = min(values) > 0 and max(values) / min(values) > 3
    figure = new_figure(
        [trace for trace in traces if trace is not None],
        xaxis=(log_ticks(values) if spread else {}) | {"title": {"text": plain(title_of(other))}},
        yaxis={"title": {"text": plain(title_of(first))}},
    )
    names = " and ".join(title_of(name) for name in objectives)
    caption = f"{counted(len(best), 'finished trial')} that no other finished trial beats in {names}: {_named(best)}."
    if snapshot.manifest.constraints:
        caption += " Trials that break a constraint are not on the front."
    if other == "sample_images_per_second":
        caption += " Speeds are measured at a trial's end, while its machine may have run other work too."
    return Chart(
        name=f"front-{other}",
        title=f"{title_of(first)} and {title_of(other)}",
        caption=caption,
        figure=figure,
        height=400,
        alt=f"{title_of(first)} against {title_of(other)} of {counted(len(known), 'trial')}.",
    )


def _named(best: Sequence[Row]) -> str:
    names = [row["trial"] for row in best]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _points(rows: Sequence[Row], first: str, other: str, name: str, symbol: str, status: str) -> Any | None:
    if not rows:
        return None
    marker = {"color": STATUS_COLOURS[status], "size": 7, "symbol": symbol, "opacity": 0.7 if len(rows) < 200 else 0.4}
    return go.Scatter(
        x=[row[other] for row in rows],
        y=[row[first] for row in rows],
        text=[_label(row, first, other) for row in rows],
        name=name,
        mode="markers",
        marker=marker,
        hovertemplate="%{text}<extra></extra>",
    )


def _front(best: Sequence[Row], first: str, other: str, *, stepped: bool) -> Any | None:
    """Return the front as steps, because what is possible between two of its trials is unknown."""
    if not best:
        return None
    rows = sorted(best, key=lambda row: row[other])
    shape = "hv" if METRICS[other] == "minimize" else "vh"
    return go.Scatter(
        x=[row[other] for row in rows],
        y=[row[first] for row in rows],
        text=[_label(row, first, other) for row in rows],
        name="front",
        mode="lines+markers" if stepped else "markers",
        line={"color": "#B2182B", "width": 1.5, "shape": shape},
        marker={"size": 9, "symbol": "diamond", "color": "#B2182B"},
        hovertemplate="%{text}<extra></extra>",
    )


def _label(row: Row, first: str, other: str) -> str:
    lines = [f"{title_of(name)} {cell(name, row[name], is_bound=bool(row['is_bound']))}" for name in (first, other)]
    return "<br>".join([plain(row["trial"]), *map(plain, lines)])
