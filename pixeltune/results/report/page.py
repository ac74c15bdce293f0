"""All of a report in one file: tables, figures, pictures, styles, and plotly.js, which draws the figures."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pixeltune.results.report.figures.chart import Chart

_PACKAGE = "pixeltune.results.report"


def render(**parts: Any) -> str:
    """The HTML of a report's parts."""
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
    """A figure as JSON that no string in it can end: `</script>` has no `<` left."""
    assert chart.figure is not None
    text: str = chart.figure.to_json()
    return Markup(_without_markup(text))


@cache
def packed_plotly() -> str:
    """plotly.js as base64 of gzip, unpacked by the page when a figure is drawn: the page is read before that."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _without_markup(text: str) -> str:
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("page", name).read_text(encoding="utf-8")
