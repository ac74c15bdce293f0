"""Figures drawn once, by kaleido in Chrome or Chromium: files for a paper, and stills for print."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pixeltune import files
from pixeltune.errors import MissingPackageError, PixeltuneError, first_line
from pixeltune.packages import has_package
from pixeltune.report.figures.chart import Chart

FORMATS = ("svg", "pdf", "png")
"""The formats of figures for a paper."""

_WIDTH, _WIDE = 600, 900
"""Pixels of 1/96 inch: 6.25 inches with letters of 10 points; wide ones are for a page in landscape format."""
_SCALE = 3
"""Scale factor of PNG: 288 dots an inch."""
_MOST_SVG_BYTES = 300_000
"""Bytes above which a still is a PNG: an SVG grows with the trials."""


def has_browser() -> bool:
    """Return whether kaleido is installed and finds a browser to draw with."""
    if not has_package("kaleido"):
        return False
    from choreographer.browsers.chromium import Chromium

    return bool(Chromium.find_browser(skip_local=False))


def require_browser() -> None:
    """Refuse at once where kaleido would find no browser to draw with."""
    if not has_browser():
        raise MissingPackageError(
            "figures as files need Chrome or Chromium, but none was found; "
            "apt-get install chromium, or set BROWSER_PATH to one"
        )


def write_figures(charts: Sequence[Chart], folder: str, formats: Sequence[str] = FORMATS) -> list[str]:
    """Write each chart that has a figure as `folder/NAME.FORMAT`; return their locations."""
    drawn = [(chart, kind) for chart in charts if chart.figure is not None for kind in formats]
    with _drawing():
        contents = [_draw(chart, kind) for chart, kind in drawn]
    locations = [files.join(folder, f"{chart.name}.{kind}") for chart, kind in drawn]
    for location, content in zip(locations, contents, strict=True):
        files.write_whole(location, content)
    return locations


def stills(charts: Sequence[Chart]) -> dict[str, str]:
    """Return a data URI of an image of each chart that has a figure, by the name of the chart."""
    drawn = [chart for chart in charts if chart.figure is not None]
    if not drawn:
        return {}
    with _drawing():
        return {chart.name: _still(chart) for chart in drawn}


@contextmanager
def _drawing() -> Iterator[None]:
    """Keep a browser open, which draws; its errors are one line."""
    import kaleido

    try:
        kaleido.start_sync_server(silence_warnings=True)
        yield
    except Exception as error:
        raise PixeltuneError(
            f"figures must be drawn by Chromium, but it failed ({first_line(error, with_type=True)})"
        ) from error
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def _draw(chart: Chart, kind: str, scale: int = _SCALE) -> bytes:
    import kaleido

    size = {"width": _WIDE if chart.is_wide else _WIDTH, "height": chart.height}
    if kind == "png":
        size["scale"] = scale
    content: bytes = kaleido.calc_fig_sync(chart.figure, opts={"format": kind, **size})
    return content


def _still(chart: Chart) -> str:
    content, kind = _draw(chart, "svg"), "svg+xml"
    if len(content) > _MOST_SVG_BYTES:
        content, kind = _draw(chart, "png", scale=2), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
