"""Build of a report of one search or several, from their stores to one HTML file."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pixeltune import files
from pixeltune.report.figures.chart import STATUS_COLOURS, Chart
from pixeltune.report.figures.curves import learning_curves
from pixeltune.report.figures.fronts import front_charts
from pixeltune.report.figures.importances import importance_charts
from pixeltune.report.figures.parallel import parallel_coordinates
from pixeltune.report.figures.slices import contour_charts, slice_charts
from pixeltune.report.figures.timeline import timeline
from pixeltune.report.sections.commands import rerun
from pixeltune.report.sections.environment import environment
from pixeltune.report.sections.finals import Finals, finals
from pixeltune.report.sections.galleries import MOST_BYTES, pictures
from pixeltune.report.sections.joint_leaderboard import joint_leaderboard
from pixeltune.report.sections.leaderboard import board
from pixeltune.report.sections.nearest_published import nearest_published
from pixeltune.report.sections.outcomes import outcomes
from pixeltune.report.sections.summary import summary
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import moment

_PACKAGE = "pixeltune.report"


def render(**parts: Any) -> str:
    """Return the HTML of a report's parts."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = figure_json
    template = environment.get_template("page.html")
    return template.render(
        style=Markup(_text("style.css")), script=Markup(_text("script.js")), plotly=Markup(packed_plotly()), **parts
    )


def figure_json(chart: Chart) -> Markup:
    """Return a figure as JSON that no string in it can end: `</script>` has no `<` left."""
    assert chart.figure is not None
    text: str = chart.figure.to_json()
    return Markup(_without_markup(text))


@cache
def packed_plotly() -> str:
    """Return plotly.js as base64 of gzip; the page unpacks it when a figure is drawn, so its text is shown before."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _without_markup(text: str) -> str:
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("page", name).read_text(encoding="utf-8")


FIRST_LINES = 25
"""Number of trials that the table shows until the user asks for all."""


@dataclass(frozen=True)
class ChartSection:
    """A heading with figures below it."""

    id: str
    title: str
    words: str
    charts: list[Chart]


def write_report(
    snapshots: Snapshot | Sequence[Snapshot],
    location: str,
    *,
    top: int = 5,
    stills: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Write the page to a path or URI, whole or not at all; return its bytes. See `report_html`."""
    content = report_html(snapshots, top=top, stills=stills).encode()
    files.write_whole(location, content)
    return len(content)


def report_html(
    snapshots: Snapshot | Sequence[Snapshot], *, top: int = 5, stills: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return the page as HTML; of several searches with a leaderboard of all, and a part for each.

    top: number of trials to emphasise. stills: images of the figures by name, for print and where no script runs; see
    `static_figures.stills`.
    """
    several = _several(snapshots)
    is_joint = len(several) > 1
    most_bytes = MOST_BYTES // len(several)
    return render(
        title=", ".join(snapshot.search for snapshot in several),
        version=importlib.metadata.version("pixeltune"),
        written=moment(max(snapshot.read_at for snapshot in several)),
        colours=STATUS_COLOURS,
        first_lines=FIRST_LINES,
        joint=joint_leaderboard(several, top) if is_joint else None,
        parts=[_part(snapshot, top, _prefix(snapshot) if is_joint else "", most_bytes) for snapshot in several],
        stills=stills,
    )


def _part(snapshot: Snapshot, top: int, prefix: str, most_bytes: int) -> dict[str, Any]:
    """Return what the page shows of a search. prefix: begins the names of its elements."""
    found = finals(snapshot) if snapshot.is_final else None
    sections = chart_sections(snapshot, top)
    overview = summary(snapshot)
    return {
        "search": snapshot.search,
        "prefix": prefix,
        "summary": replace(overview, headline=found.headline) if found else overview,
        "sections": _contents(found, sections),
        "finals": replace(found, charts=_named(found.charts, prefix)) if found else None,
        "board": board(snapshot, top),
        "published": nearest_published(snapshot, found.places if found else ()),
        "chart_sections": [replace(section, charts=_named(section.charts, prefix)) for section in sections],
        "pictures": pictures(snapshot, top, most_bytes),
        "timeline": _named([timeline(snapshot)], prefix)[0],
        "outcomes": outcomes(snapshot),
        "rerun": rerun(snapshot),
        "environment": environment(snapshot),
    }


def _several(snapshots: Snapshot | Sequence[Snapshot]) -> Sequence[Snapshot]:
    return [snapshots] if isinstance(snapshots, Snapshot) else snapshots


def _prefix(snapshot: Snapshot) -> str:
    return f"{snapshot.search}-"


def _named(charts: Sequence[Chart], prefix: str) -> list[Chart]:
    return [replace(chart, name=prefix + chart.name) for chart in charts]


def chart_sections(snapshot: Snapshot, top: int) -> list[ChartSection]:
    """Return the figures between the tables and the galleries, by section; a final has learning curves alone."""
    curves = ChartSection("curves", "Learning curves", "", [learning_curves(snapshot, top)])
    if snapshot.is_final:
        return [curves]
    return [
        curves,
        ChartSection("space", "The space searched", "", [*importance_charts(snapshot), parallel_coordinates(snapshot)]),
        ChartSection("slices", "Slices", "Trials by one key, at any value of the others.", slice_charts(snapshot)),
        ChartSection("contours", "Contours", "", contour_charts(snapshot)),
        ChartSection("front", "What likelihood costs", "", front_charts(snapshot)),
    ]


def all_charts(snapshots: Snapshot | Sequence[Snapshot], top: int) -> list[Chart]:
    """Return every figure of a report that can be drawn; of several searches, their names begin with the search's."""
    several = _several(snapshots)
    return [
        chart
        for snapshot in several
        for chart in _named(_charts(snapshot, top), _prefix(snapshot) if len(several) > 1 else "")
    ]


def _charts(snapshot: Snapshot, top: int) -> list[Chart]:
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
