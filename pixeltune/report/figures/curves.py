"""Learning curves: the likelihood against training images seen, with the baseline and the best published number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import plotly.graph_objects as go

from pixeltune.format import counted, is_or_are
from pixeltune.published.comparability import identity_of
from pixeltune.published.nearest import best_published
from pixeltune.published.table import Exactness
from pixeltune.report.figures.chart import BEST_COLOURS, STATUS_COLOURS, Chart, log_ticks, new_figure, plain
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import cell, title_of
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status

_MOST_POINTS = 24_000
_FEWEST_OF_A_CURVE = 6
_TITLE = "Learning curves"
_CROWD = 100
"""Number of curves above which those of trials without a result are hidden at first."""

_RESULTLESS = (Status.INTERRUPTED, Status.DIVERGED, Status.OOM, Status.FAILED, Status.REJECTED)


def learning_curves(snapshot: Snapshot, top: int) -> Chart:
    """Return learning curves, the best `top` one by one and the others by outcome; of a final, the training loss."""
    split = "train" if snapshot.is_final else "valid"
    metric = f"{split}_{snapshot.unit}"
    curves = {
        trial: points
        for trial, reports in snapshot.curves.items()
        if (points := [report for report in reports if report[metric] is not None and report["images_seen"] > 0])
    }
    if not curves:
        return Chart(name="curves", title=_TITLE, missing="No trial has reported yet.")
    thinned = {trial: thin(points, metric, _most(len(curves))) for trial, points in curves.items()}
    best = [row["trial"] for row in snapshot.best(min(top, len(BEST_COLOURS))) if row["trial"] in curves]
    lines = _yardsticks(snapshot)
    ceiling = _ceiling(curves, metric, [value for _, value in lines])
    if snapshot.is_final:
        traces = _configurations(snapshot, thinned, metric)
    else:
        traces = [*_groups(snapshot, thinned, metric, best), *_best(thinned, metric, best)]
    images = [report["images_seen"] for points in curves.values() for report in (points[0], points[-1])]
    figure = new_figure(
        traces,
        xaxis=log_ticks(images) | {"title": {"text": "training images seen"}},
        yaxis={"title": {"text": _axis(metric, snapshot)}, "range": _range(curves, metric, lines, ceiling)},
    )
    for text, value in lines:
        _draw_line(figure, text, value)
    return Chart(
        name="curves",
        title=_TITLE,
        caption=_caption(snapshot, curves, thinned, metric, ceiling),
        figure=figure,
        height=520,
        is_wide=True,
        alt=f"{counted(len(curves), 'curve')} of {title_of(metric)} against training images seen.",
    )


def thin(points: Sequence[Row], metric: str, most: int) -> Sequence[Row]:
    """Return at most `most` reports of a curve: the first, the last, the best, and others evenly in log images."""
    if len(points) <= most:
        return points
    low, high = math.log(points[0]["images_seen"]), math.log(points[-1]["images_seen"])
    kept = {0, len(points) - 1, min(range(len(points)), key=lambda index: points[index][metric])}
    at = 0
    for step in range(1, most - 2):
        goal = low + (high - low) * step / (most - 2)
        while at < len(points) - 1 and math.log(points[at]["images_seen"]) < goal:
            at += 1
        kept.add(at)
    return [points[index] for index in sorted(kept)]


def _most(count: int) -> int:
    return max(_FEWEST_OF_A_CURVE, _MOST_POINTS // count)


def _groups(snapshot: Snapshot, curves: Mapping[str, Sequence[Row]], metric: str, best: Sequence[str]) -> list[Any]:
    """Return a trace for each outcome: a thousand traces could neither be drawn nor read."""
    status_of = {row["trial"]: str(row["status"]) for row in snapshot.rows}
    traces = []
    for status in (*_RESULTLESS, Status.RUNNING, Status.STOPPED, Status.PRUNED, Status.FINISHED):
        trials = [trial for trial in curves if status_of.get(trial) == status and trial not in best]
        if trials:
            opacity = max(0.28, min(0.75, 12 / len(trials)))
            name = f"{status} ({len(trials):,})"
            trace = _trace({trial: curves[trial] for trial in trials}, metric, name, STATUS_COLOURS[status], opacity)
            hidden = status in _RESULTLESS and len(curves) > _CROWD
            traces.append(trace.update(visible="legendonly") if hidden else trace)
    return traces


def _configurations(snapshot: Snapshot, curves: Mapping[str, Sequence[Row]], metric: str) -> list[Any]:
    """Return a trace for each configuration of a final, with the curves of all its seeds."""
    runs: dict[str, dict[str, Sequence[Row]]] = {}
    for row in snapshot.rows:
        if row["trial"] in curves:
            runs.setdefault(str(row["from_trial"]), {})[row["trial"]] = curves[row["trial"]]
    colours = cycle(BEST_COLOURS)
    return [
        _trace(group, metric, f"{trial}, {counted(len(group), 'run')}", next(colours), 0.9)
        for trial, group in runs.items()
    ]


def _best(curves: Mapping[str, Sequence[Row]], metric: str, best: Sequence[str]) -> list[Any]:
    return [
        _trace({trial: curves[trial]}, metric, f"{place}. {trial}", colour, 1.0, width=2.5)
        for place, (trial, colour) in enumerate(zip(best, BEST_COLOURS, strict=False), start=1)
    ]


def _trace(
    curves: Mapping[str, Sequence[Row]], metric: str, name: str, colour: str, opacity: float, width: float = 1.2
) -> Any:
    """Return one trace of all curves, with a gap between two of them."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    for trial, points in curves.items():
        xs += [*(report["images_seen"] for report in points), None]
        ys += [*(report[metric] for report in points), None]
        texts += [*([plain(trial)] * len(points)), None]
    are_few = len(xs) < 400
    return go.Scatter(
        x=xs[:-1],
        y=ys[:-1],
        text=texts[:-1],
        name=name,
        mode="lines+markers" if are_few else "lines",
        line={"color": colour, "width": width},
        marker={"size": 4},
        opacity=opacity,
        hovertemplate="%{text}<br>%{x:,} images<br>%{y:.4f}<extra></extra>",
    )


def _yardsticks(snapshot: Snapshot) -> list[tuple[str, float]]:
    """Return the horizontal lines: the meaning and the value of each."""
    lines = []
    baseline = snapshot.baseline()
    if baseline is not None and not snapshot.is_final:
        lines.append((f"order-0 baseline {cell(snapshot.unit, baseline)} (validation)", baseline))
    row = next(iter(snapshot.best(1)), None)
    nearest = best_published(identity_of(row), row) if row else None
    if nearest and nearest.published.metric == snapshot.unit and nearest.ours is not None:
        published = nearest.published
        bound = "≤ " if published.likelihood is Exactness.LOWER_BOUND else ""
        word = "comparable" if nearest.comparable else "not comparable"
        lines.append((f"{published.model} {bound}{published.value:g} ({published.split}; {word})", published.value))
    return lines


def _draw_line(figure: go.Figure, text: str, value: float) -> None:
    """Draw a line with its text above it at the right end, where curves are low."""
    figure.add_hline(y=value, line={"color": "#444", "width": 1.3, "dash": "dash"})
    figure.add_annotation(
        x=1,
        xref="paper",
        xanchor="right",
        y=value,
        yanchor="bottom",
        text=plain(text),
        showarrow=False,
        font={"size": 11.5, "color": "#333"},
        bgcolor="rgba(255,255,255,0.75)",
        borderpad=1,
    )


def _ceiling(curves: Mapping[str, Sequence[Row]], metric: str, lines: Sequence[float]) -> float:
    """Return the upper edge: the highest report, unless a few are so far above that they would flatten the others."""
    values: list[float] = sorted(report[metric] for points in curves.values() for report in points)
    usual = values[int(0.97 * (len(values) - 1))]
    far = usual + (usual - values[0])
    return max([values[-1] if values[-1] <= far else usual, *lines])


def _range(
    curves: Mapping[str, Sequence[Row]], metric: str, lines: Sequence[tuple[str, float]], ceiling: float
) -> list[float]:
    lowest = min(
        [min(report[metric] for report in points) for points in curves.values()] + [value for _, value in lines]
    )
    padding = 0.06 * (ceiling - lowest) or 0.05 * abs(ceiling) or 1.0
    return [lowest - padding, ceiling + padding]


def _axis(metric: str, snapshot: Snapshot) -> str:
    return title_of(metric) + (" (upper bound)" if snapshot.is_bound else "")


def _caption(
    snapshot: Snapshot,
    curves: Mapping[str, Sequence[Row]],
    thinned: Mapping[str, Sequence[Row]],
    metric: str,
    ceiling: float,
) -> str:
    points = sum(map(len, curves.values()))
    drawn = sum(map(len, thinned.values()))
    above = sum(report[metric] > ceiling for reports in curves.values() for report in reports)
    parts = [f"{counted(len(curves), 'trial')} with a report."]
    if snapshot.is_final:
        parts.append("The mean loss since the report before: a final has no validation images.")
    if drawn < points:
        parts.append(
            f"Thinned: {drawn:,} of {points:,} reports are drawn, the first, last and best of each trial among them."
        )
    if above:
        parts.append(f"{counted(above, 'report')} above the upper edge; double-click shows all.")
    if len(curves) > _CROWD and any(row["status"] in _RESULTLESS for row in snapshot.rows):
        parts.append("Trials without a result are hidden; a click on their outcome in the legend shows them.")
    silent = sum(1 for row in snapshot.rows if row["trial"] not in curves)
    if silent:
        parts.append(f"{counted(silent, 'trial')} without a report {is_or_are(silent)} not here.")
    return " ".join(parts)
