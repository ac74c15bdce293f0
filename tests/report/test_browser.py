"""A report in a real browser: Chromium, headless, without a network."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.support.optional import find_program, require

require("playwright", "plotly", "jinja2", "kaleido", "chromium")
from playwright.sync_api import Browser, Page, sync_playwright

from pixeltune.report.page_builder import all_charts, write_report
from pixeltune.report.snapshot import read_snapshot
from pixeltune.report.static_figures import stills, write_figures
from tests.support.made_up_search import write_results
from tests.support.report_pages import READ_AT, made_up, make_final

pytestmark = pytest.mark.slow

DRAWN = """name => {
  const plot = document.getElementById(name).querySelector('.main-svg');
  if (plot === null || document.getElementById(name).dataset.drawn !== 'done') return false;
  const box = plot.getBoundingClientRect();
  const marks = document.getElementById(name).querySelectorAll('.scatterlayer path, .barlayer path');
  return box.width > 100 && box.height > 100 && marks.length > 0;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a search, with and without stills, of one with two objectives, and of a final."""
    found = tmp_path_factory.mktemp("reports")
    one = made_up(found / "one", trials=60)
    write_report(one, str(found / "one.html"))
    write_report(one, str(found / "still.html"), stills=stills(all_charts(one, 5)))
    two = made_up(found / "two", trials=40, objectives=("valid_bits_per_dim", "sample_images_per_second"))
    write_report(two, str(found / "two.html"))
    write_report(make_final(found / "final", {"00003": 80.0, "00007": 85.0}), str(found / "final.html"))
    return found


class Tab:
    """A page in a browser that has no network. said: what its console and its errors told; asked: what it loads."""

    def __init__(self, browser: Browser, location: Path, width: int = 1280, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **context)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(location.as_uri())

    def draw_all(self) -> list[str]:
        """Scroll to every figure and wait until it is drawn; their names."""
        names: list[str] = self.page.eval_on_selector_all(".plot", "plots => plots.map(plot => plot.id)")
        for name in names:
            self.page.eval_on_selector(f"#{name}", "plot => plot.scrollIntoView()")
            self.page.wait_for_function(DRAWN, arg=name, timeout=60_000)
        return names

    def colours(self) -> dict[str, int]:
        """The number of colours of each figure in a screenshot of the whole page, which was not scrolled."""
        boxes: dict[str, dict[str, float]] = {
            name: self.page.locator(f".holder:has(#{name})").bounding_box()
            for name in self.page.eval_on_selector_all(".plot", "plots => plots.map(plot => plot.id)")
        }
        with Image.open(io.BytesIO(self.page.screenshot(full_page=True))) as image:
            pixels = image.convert("RGB")
        return {
            name: len(
                pixels.crop(
                    (int(box["x"]), int(box["y"]), int(box["x"] + box["width"]), int(box["y"] + box["height"]))
                ).getcolors(2**24)
                or []
            )
            for name, box in boxes.items()
        }

    def wait_for_all(self) -> None:
        """Wait until every figure is drawn, without scrolling."""
        drawn = "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn === 'done')"
        self.page.wait_for_function(drawn, timeout=60_000)

    def column(self, name: str) -> list[str]:
        """The values of a column in the order of the lines that are shown, those without a value apart."""
        values: list[str] = self.page.evaluate(
            """name => {
              const heads = [...document.querySelectorAll('#board th')];
              const at = heads.findIndex(head => head.dataset.name === name);
              return [...document.querySelectorAll('#board tbody tr')]
                .filter(row => row.offsetParent !== null || getComputedStyle(row).display !== 'none')
                .map(row => row.cells[at].dataset.value ?? '');
            }""",
            name,
        )
        return values


@pytest.fixture
def tab(browser: Browser, folder: Path) -> Iterator[Tab]:
    found = Tab(browser, folder / "one.html")
    yield found
    found.context.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["one", "two", "final"])
def test_every_figure_draws_without_an_error_or_a_request(
    browser: Browser, folder: Path, name: str, width: int
) -> None:
    tab = Tab(browser, folder / f"{name}.html", width)
    assert len(tab.draw_all()) >= {"one": 12, "two": 11, "final": 4}[name]
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file://", "blob:", "data:"))] == []
    assert tab.page.evaluate("window.broken") is None
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.context.close()


def test_figures_with_a_still_wait_until_they_are_looked_at(browser: Browser, folder: Path) -> None:
    tab = Tab(browser, folder / "still.html")
    tab.page.wait_for_timeout(1000)
    drawn = "plots => plots.filter(plot => plot.dataset.drawn).length"
    assert tab.page.eval_on_selector_all(".plot", drawn) < 3
    tab.draw_all()
    assert not tab.page.is_visible("#plot-curves + .still"), "the interactive figure takes its place"
    tab.context.close()


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_a_page_that_was_not_scrolled_shows_every_figure(
    browser: Browser, folder: Path, media: Literal["screen", "print"], width: int, scripts: bool
) -> None:
    tab = Tab(browser, folder / "still.html", width, java_script_enabled=scripts)
    tab.page.emulate_media(media=media)
    found = tab.colours()
    assert len(found) >= 12
    assert min(found.values()) > 10, found
    tab.context.close()


@pytest.mark.parametrize("media", ["screen", "print"])
def test_figures_without_a_still_are_drawn_without_scrolling(
    browser: Browser, folder: Path, media: Literal["screen", "print"]
) -> None:
    tab = Tab(browser, folder / "one.html")
    tab.wait_for_all()
    tab.page.emulate_media(media=media)
    found = tab.colours()
    assert len(found) >= 12
    assert min(found.values()) > 10, found
    assert tab.said == []
    tab.context.close()


def test_a_print_draws_at_once_what_is_left_and_fits_the_sheet(browser: Browser, folder: Path) -> None:
    tab = Tab(browser, folder / "one.html")
    tab.page.wait_for_function("window.Plotly !== undefined", timeout=60_000)
    left = """() => {
      const undrawn = plot => plot.querySelector('.main-svg') === null;
      const before = [...document.querySelectorAll('.plot')].filter(undrawn).length;
      window.dispatchEvent(new Event('beforeprint'));
      const widths = [...document.querySelectorAll('.plot')].map(plot => plot.querySelector('.main-svg')?.clientWidth);
      return [before, Math.min(...widths), Math.max(...widths)];
    }"""
    _, least, most = tab.page.evaluate(left)
    assert 100 < least <= most <= 680
    tab.wait_for_all()
    assert tab.said == []
    tab.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    width = "document.querySelector('#plot-curves .main-svg').clientWidth"
    tab.page.wait_for_function(f"{width} > 1000", timeout=60_000)
    tab.context.close()


@pytest.mark.parametrize("name", ["one", "still"])
def test_a_printed_page_has_its_figures(browser: Browser, folder: Path, tmp_path: Path, name: str) -> None:
    require("mutool")
    tab = Tab(browser, folder / f"{name}.html")
    if name == "one":
        tab.wait_for_all()
    tab.page.pdf(path=tmp_path / "page.pdf", format="A4")
    tab.context.close()
    subprocess.run(
        [find_program("mutool") or "", "draw", "-r", "40", "-o", str(tmp_path / "%d.png"), str(tmp_path / "page.pdf")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    pages = [page for page in tmp_path.glob("*.png") if has_colours(page)]
    assert len(pages) >= 5, "curves, parallel coordinates, slices, contours, fronts and the timeline"


def has_colours(page: Path) -> bool:
    """Whether a picture has more than three colours that are no greys."""
    with Image.open(page) as image:
        found = image.convert("RGB").getcolors(2**24) or []
    return sum(max(rgb) - min(rgb) > 60 for _, rgb in found if isinstance(rgb, tuple)) > 3


def test_the_table_fits_a_wide_page_and_keeps_the_number_in_view_on_a_phone(browser: Browser, folder: Path) -> None:
    tab = Tab(browser, folder / "still.html")
    scroll = "[aria-label=trials]"
    assert tab.page.eval_on_selector(scroll, "box => box.scrollWidth <= box.clientWidth")
    tab.page.set_viewport_size({"width": 400, "height": 900})
    assert tab.page.eval_on_selector(scroll, "box => box.scrollWidth > box.clientWidth")
    tab.page.eval_on_selector(scroll, "box => { box.scrollLeft = box.scrollWidth; box.scrollIntoView(); }")
    lefts: list[float] = []
    for name in ("rank", "trial", "valid_bits_per_dim"):
        column = tab.page.evaluate(
            "name => [...document.querySelectorAll('#board th')].findIndex(head => head.dataset.name === name)", name
        )
        box = tab.page.locator("#board tbody tr").first.locator("td").nth(column).bounding_box()
        assert box is not None
        lefts += [box["x"], box["x"] + box["width"]]
    assert lefts == sorted(lefts), "side by side"
    assert lefts[0] >= 0
    assert lefts[-1] < 250, "most of the page is left for the other columns"
    tab.context.close()


def test_each_table_of_several_searches_sorts_and_hides_alone(browser: Browser, tmp_path: Path) -> None:
    stores = [write_results(str(tmp_path), name, trials=30, seed=seed) for seed, name in enumerate(("one", "two"))]
    write_report([read_snapshot(store, now=READ_AT) for store in stores], str(tmp_path / "both.html"))
    tab = Tab(browser, tmp_path / "both.html")
    order = "rows => rows.map(row => row.textContent)"
    before = {name: tab.page.eval_on_selector_all(f"#{name}-board tbody tr", order) for name in ("all", "one", "two")}
    tab.page.click("#one-board th[data-name='num_parameters'] button")
    tab.page.uncheck("#all-statuses input[value='pruned']")
    after = {name: tab.page.eval_on_selector_all(f"#{name}-board tbody tr", order) for name in before}
    assert after["one"] != before["one"]
    assert sorted(after["one"]) == sorted(before["one"])
    assert (after["all"], after["two"]) == (before["all"], before["two"])
    hidden = "rows => rows.filter(row => row.classList.contains('off')).length"
    assert tab.page.eval_on_selector_all("#all-board tbody tr", hidden) > 0
    assert tab.page.eval_on_selector_all("#one-board tbody tr, #two-board tbody tr", hidden) == 0
    tab.page.click("#two-more")
    assert tab.page.inner_text("#two-more") == "Show the first 25"
    assert tab.page.inner_text("#one-more") == "Show all 30"
    tab.wait_for_all()
    assert tab.said == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.context.close()


@pytest.mark.parametrize("name", ["one", "still"])
def test_a_dark_page_has_dark_figures_and_a_white_print(browser: Browser, folder: Path, name: str) -> None:
    tab = Tab(browser, folder / f"{name}.html", color_scheme="dark")
    if name == "one":
        tab.wait_for_all()
    corner = {"screen": (0, 90), "print": (250, 255)}
    for media in ("screen", "print"):
        tab.page.emulate_media(media=media)  # type: ignore[arg-type]
        for place in ("body", ".holder:has(#plot-timeline)"):
            box = tab.page.locator(place).bounding_box()
            assert box is not None
            with Image.open(io.BytesIO(tab.page.screenshot(full_page=True))) as image:
                pixel = image.convert("L").getpixel((int(box["x"]) + 2, int(box["y"] + box["height"]) - 3))
            low, high = corner[media]
            assert low <= pixel <= high, (media, place)  # type: ignore[operator]
    tab.context.close()


def test_each_column_sorts_by_its_values_and_keeps_the_order_of_equal_ones(tab: Tab) -> None:
    tab.page.click("#more")
    heads: list[str] = tab.page.eval_on_selector_all(
        "#board th:not([hidden])", "heads => heads.map(h => h.dataset.name)"
    )
    assert len(heads) > 10
    for name in heads:
        before = list(zip(tab.column(name), tab.column("trial"), strict=True))
        is_text = tab.page.eval_on_selector(f"#board th[data-name='{name}']", "head => head.classList.contains('text')")
        tab.page.click(f"#board th[data-name='{name}'] button")
        after = list(zip(tab.column(name), tab.column("trial"), strict=True))
        known = [value for value, _ in after if value]
        assert after[len(known) :] == [pair for pair in before if not pair[0]], name
        if is_text:
            assert known == sorted(known, key=str.casefold), name
            assert after[: len(known)] == sorted(
                [pair for pair in before if pair[0]], key=lambda pair: pair[0].casefold()
            )
        else:
            assert after[: len(known)] == sorted([pair for pair in before if pair[0]], key=lambda pair: float(pair[0]))
        assert tab.page.get_attribute(f"#board th[data-name='{name}']", "aria-sort") == "ascending"
        tab.page.click(f"#board th[data-name='{name}'] button")
        down = [value for value in tab.column(name) if value]
        assert down == (
            sorted(known, key=str.casefold, reverse=True) if is_text else sorted(known, key=float, reverse=True)
        )
    assert tab.page.eval_on_selector_all("#board th[aria-sort]", "heads => heads.length") == 1


def test_the_first_lines_are_shown_and_statuses_and_columns_can_be_hidden(tab: Tab) -> None:
    assert len(tab.column("trial")) == 25
    tab.page.uncheck("#statuses input[value='finished']")
    assert "finished" not in tab.column("status")
    assert len(tab.column("trial")) == 25, "hidden lines make room"
    tab.page.click("#more")
    shown = len(tab.column("trial"))
    assert 25 < shown < 60
    assert tab.page.inner_text("#more") == "Show the first 25"
    tab.page.check("#statuses input[value='finished']")
    assert len(tab.column("trial")) == 60
    wide = tab.page.eval_on_selector("#board", "table => table.offsetWidth")
    tab.page.click("#columns summary")
    assert not tab.page.is_visible("#board th[data-name='valid_nats']")
    tab.page.check("#columns label:has-text('nats/image') input")
    assert tab.page.is_visible("#board th[data-name='valid_nats']")
    assert tab.page.eval_on_selector("#board", "table => table.offsetWidth") > wide


def test_figures_for_a_paper_are_white_and_large_enough(tmp_path: Path) -> None:
    charts = all_charts(made_up(tmp_path, trials=60), 3)
    locations = write_figures(charts, str(tmp_path / "figures"))
    assert len(locations) == 3 * len(charts) >= 36
    for chart, first in zip(charts, locations[::3], strict=True):
        svg, pdf, location = (first.removesuffix("svg") + kind for kind in ("svg", "pdf", "png"))
        root = ElementTree.parse(svg).getroot()
        assert root.get("width") == str(900 if chart.is_wide else 600)
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
        assert Path(pdf).read_bytes().startswith(b"%PDF-")
        with Image.open(location) as image:
            assert image.width == (2700 if chart.is_wide else 1800)
            assert image.height == 3 * chart.height
            pixels = image.convert("RGB")
            assert pixels.getpixel((2, 2)) == (255, 255, 255)
            assert len(pixels.getcolors(2**24) or []) > 10


def test_a_thousand_trials_are_far_below_fifteen_megabytes_and_open(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 2,000 files that nobody needs to keep
    store = write_results(str(tmp_path), "large", trials=1000, reports=20)
    big = os.urandom(1_400_000)
    snapshot = read_snapshot(store, now=READ_AT)
    for row in snapshot.best(5):
        add_picture(store.gallery(row["trial"]), big)
    size = write_report(snapshot, str(tmp_path / "large.html"))
    assert 5_000_000 < size < 15_000_000
    tab = Tab(browser, tmp_path / "large.html")
    assert len(tab.draw_all()) >= 12
    assert tab.said == []
    assert tab.page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    tab.context.close()


def add_picture(location: str, noise: bytes) -> None:
    """A gallery as large as those of colour images are."""
    Path(location).parent.mkdir(exist_ok=True)
    Image.frombytes("RGB", (680, 680), noise[: 680 * 680 * 3]).save(location, "PNG")


def test_the_installed_command_writes_a_page_that_opens(browser: Browser, tmp_path: Path) -> None:
    made_up(tmp_path / "results", trials=24)
    subprocess.run(
        [sys.executable, "-m", "pixeltune", "report", "toy", "--storage", "results"],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    tab = Tab(browser, tmp_path / "toy-report.html")
    assert tab.page.title() == "toy – pixeltune report"
    assert len(tab.column("trial")) == 24
    tab.context.close()
