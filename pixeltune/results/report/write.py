"""A report of a search, from its store to one HTML file, or to PNG files for a paper."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace

from pixeltune import files
from pixeltune.results.report.beside import beside_published
from pixeltune.results.report.board import board
from pixeltune.results.report.environment import environment
from pixeltune.results.report.figures.chart import STATUS_COLOURS, Chart
from pixeltune.results.report.figures.curves import learning_curves
from pixeltune.results.report.figures.fronts import front_charts
from pixeltune.results.report.figures.importances import importance_charts
from pixeltune.results.report.figures.parallel import parallel_coordinates
from pixeltune.results.report.figures.slices import contour_charts, slice_charts
from pixeltune.results.report.figures.timeline import timeline
from pixeltune.results.report.finals import Finals, finals
from pixeltune.results.report.outcomes import outcomes
from pixeltune.results.report.page import render
from pixeltune.results.report.pictures import pictures
from pixeltune.results.report.rerun import rerun
from pixeltune.results.report.snapshot import Snapshot
from pixeltune.results.report.summary import summary
from pixeltune.results.report.words import moment

FIRST_LINES = 25
"""Trials that the table shows until it is asked for all."""


@dataclass(frozen=True)
class ChartSection:
    """A heading with figures below it."""

    id: str
    title: str
    words: str
    charts: list[Chart]


def write_report(snapshot: Snapshot, location: str, *, top: int = 5) -> int:
    """Write the page to a path or URI, whole or not at all; its size in bytes. top: how many best trials stand out."""
    content = report_html(snapshot, top=top).encode()
    files.write_whole(location, content)
    return len(content)


def report_html(snapshot: Snapshot, *, top: int = 5) -> str:
    """The page."""
    found = finals(snapshot) if snapshot.is_final else None
    sections = chart_sections(snapshot, top)
    told = summary(snapshot)
    return render(
        search=snapshot.search,
        version=importlib.metadata.version("pixeltune"),
        written=moment(snapshot.read_at),
        summary=replace(told, headline=found.headline) if found else told,
        colours=STATUS_COLOURS,
        sections=_contents(found, sections),
        finals=found,
        board=board(snapshot),
        first_lines=FIRST_LINES,
        published=beside_published(snapshot, found.places if found else ()),
        chart_sections=sections,
        pictures=pictures(snapshot, top),
        timeline=timeline(snapshot),
        outcomes=outcomes(snapshot),
        rerun=rerun(snapshot),
        environment=environment(snapshot),
    )


def chart_sections(snapshot: Snapshot, top: int) -> list[ChartSection]:
    """The figures between the tables and the pictures, by section; a final searches nothing."""
    curves = ChartSection("curves", "Learning curves", "", [learning_curves(snapshot, top)])
    if snapshot.is_final:
        return [curves]
    return [
        curves,
        ChartSection("space", "The space searched", "", [*importance_charts(snapshot), parallel_coordinates(snapshot)]),
        ChartSection("slices", "Slices", "Trials by one key, whatever their others were.", slice_charts(snapshot)),
        ChartSection("contours", "Contours", "", contour_charts(snapshot)),
        ChartSection("front", "What likelihood costs", "", front_charts(snapshot)),
    ]


def all_charts(snapshot: Snapshot, top: int) -> list[Chart]:
    """Every figure of a report, those that cannot be drawn apart."""
    charts = [chart for section in chart_sections(snapshot, top) for chart in section.charts] + [timeline(snapshot)]
    charts += finals(snapshot).charts if snapshot.is_final else []
    return [chart for chart in charts if chart.figure is not None]


def _contents(found: Finals | None, sections: list[ChartSection]) -> list[tuple[str, str]]:
    begin = [("summary", "Summary"), *([("final", "Test numbers")] if found else [])]
    middle = [("leaderboard", "Runs" if found else "Leaderboard"), ("published", "Published numbers")]
    charts = [(section.id, section.title) for section in sections]
    return [
        *begin,
        *middle,
        *charts,
        ("samples", "Samples"),
        ("outcomes", "Outcomes"),
        ("rerun", "Rerun"),
        ("environment", "Environment"),
    ]
