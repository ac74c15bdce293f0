"""The time and machine of each attempt, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

from pixeltune.format import counted, shortened, span
from pixeltune.report.figures.chart import STATUS_COLOURS, Chart, new_figure, plain
from pixeltune.report.snapshot import Snapshot
from pixeltune.results.parquet_io import Row
from pixeltune.results.schema import Status

_TITLE = "Timeline"
_UNKNOWN = "machine not known"


def timeline(snapshot: Snapshot) -> Chart:
    """Return a bar for each attempt. Results do not record the worker, so each bar is drawn on the first free line."""
    spans = [(row, *_span(row, snapshot)) for row in snapshot.attempts if row["started_at"] is not None]
    if not spans:
        return Chart(name="timeline", title=_TITLE, missing="No trial has begun.")
    lanes = assign_lanes([(str(row["hostname"] or _UNKNOWN), start, end) for row, start, end in spans])
    names = sorted(set(lanes))
    labels = _labels(names)
    traces = [
        _bars([item for item in zip(spans, lanes, strict=True) if item[0][0]["status"] == status], status, labels)
        for status in STATUS_COLOURS
    ]
    figure = new_figure(
        [trace for trace in traces if trace is not None],
        barmode="overlay",
        bargap=0.25,
        xaxis={"type": "date", "title": {"text": "time, UTC"}},
        yaxis={
            "categoryorder": "array",
            "categoryarray": [labels[name] for name in reversed(names)],
            "showline": False,
            "ticks": "",
            "showgrid": False,
        },
    )
    hosts = len({host for host, _ in names})
    text = (
        f"A bar each of {counted(len(spans), 'attempt')} on {counted(hosts, 'machine')}; which worker of a machine ran "
        "it is not recorded, so each is drawn on the first free line."
    )
    if any(row["status"] == Status.RUNNING for row, *_ in spans):
        text += " Running ones end with their last report, or now where a launcher is at work."
    return Chart(
        name="timeline",
        title=_TITLE,
        caption=text,
        figure=figure,
        height=min(900, 130 + 26 * len(names)),
        is_wide=True,
        alt=f"{counted(len(spans), 'attempt')} over time, by machine and outcome.",
    )


def assign_lanes(spans: Sequence[tuple[str, datetime, datetime]]) -> list[tuple[str, int]]:
    """Return host and line of each span (host, start, end): none on a line overlap, on as few lines as possible."""
    free: dict[str, list[datetime]] = {}
    lanes: dict[int, tuple[str, int]] = {}
    for index in sorted(range(len(spans)), key=lambda index: (spans[index][1], index)):
        host, start, end = spans[index]
        ends = free.setdefault(host, [])
        line = next((line for line, until in enumerate(ends) if until <= start), len(ends))
        ends[line : line + 1] = [end]
        lanes[index] = (host, line)
    return [lanes[index] for index in range(len(spans))]


def _labels(names: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    several = {host for host, line in names if line > 0}
    return {
        (host, line): plain(shortened(host, 28)) + (f" {line + 1}" if host in several else "") for host, line in names
    }


def _span(row: Row, snapshot: Snapshot) -> tuple[datetime, datetime]:
    start = row["started_at"]
    if row["finished_at"] is not None:
        return start, max(start, row["finished_at"])
    if snapshot.launcher is not None and row["status"] == Status.RUNNING:
        return start, max(start, snapshot.read_at)
    reports = [
        report["reported_at"] for report in snapshot.curves.get(row["trial"], []) if report["attempt"] == row["attempt"]
    ]
    return start, max([start, *reports])


def _bars(items: Sequence[Any], status: str, labels: Mapping[tuple[str, int], str]) -> Any | None:
    if not items:
        return None
    bars: dict[str, list[Any]] = {"base": [], "x": [], "y": [], "text": []}
    for (row, start, end), lane in items:
        seconds = (end - start).total_seconds()
        bars["base"].append(start.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3])
        bars["x"].append(1000 * seconds)
        bars["y"].append(labels[lane])
        reason = f"<br>{plain(shortened(row['reason'], 90))}" if row["reason"] else ""
        bars["text"].append(f"{row['trial']}, attempt {row['attempt']}: {status}<br>{span(seconds)}{reason}")
    return go.Bar(
        **bars,
        orientation="h",
        name=f"{status} ({len(items):,})",
        textposition="none",
        marker={"color": STATUS_COLOURS[status], "line": {"color": "white", "width": 0.6}},
        hovertemplate="%{text}<extra></extra>",
    )
