"""The figures of a report as PNG files, in the width of a paper's page, on white, with fonts that can be read there."""

from __future__ import annotations

from collections.abc import Sequence

from pixeltune import files
from pixeltune.errors import MissingPackageError, PixeltuneError
from pixeltune.results.report.figures.chart import Chart

_WIDTH, _WIDE = 600, 900
"""In pixels of 1/96 inch: 6.25 inches with letters of 10 points; wide ones are for a page across."""
_SCALE = 3
"""288 dots an inch."""


def require_browser() -> None:
    """Refuse at once where kaleido would find no browser to draw with."""
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        raise MissingPackageError(
            "figures as PNG need Chrome or Chromium, but none was found; "
            "apt-get install chromium, or set BROWSER_PATH to one"
        )


def write_papers(charts: Sequence[Chart], folder: str) -> list[str]:
    """Write each chart that has a figure as `folder/NAME.png`; their locations."""
    import kaleido

    drawn = [chart for chart in charts if chart.figure is not None]
    try:
        kaleido.start_sync_server(silence_warnings=True)
        contents = [_png(chart) for chart in drawn]
    except Exception as error:
        raise PixeltuneError(f"figures must be drawn by Chromium, but it failed ({_first_line(error)})") from error
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
    locations = [files.join(folder, f"{chart.name}.png") for chart in drawn]
    for location, content in zip(locations, contents, strict=True):
        files.write_whole(location, content)
    return locations


def _png(chart: Chart) -> bytes:
    import kaleido

    size = {"width": _WIDE if chart.is_wide else _WIDTH, "height": chart.height, "scale": _SCALE}
    content: bytes = kaleido.calc_fig_sync(chart.figure, opts={"format": "png", **size})
    return content


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
