"""A report in a real browser: Chromium, headless, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.optional import find_program, require

require("playwright", "plotly", "jinja2", "kaleido", "chromium")
from playwright.sync_api import Browser, Page, sync_playwright

from pixeltune.report.page_builder import all_charts, write_papers, write_report
from pixeltune.report.snapshot import read_snapshot
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
    """Reports of a search, of one with two objectives, and of a final."""
    found = tmp_path_factory.mktemp("reports")
    write_report(made_up(found / "one", trials=60), str(found / "one.html"))
    two = made_up(found / "two", trials=40, objectives=("valid_bits_per_dim", "sample_images_per_second"))
    write_report(two, str(found / "two.html"))
    write_report(make_final(found / "final", {"00003": 80.0, "00007": 85.0}), str(found / "final.html"))
    return found


class Tab:
    """A page in a browser that has no network. said: what its console and its errors told; asked: what it loads."""

    def __init__(self, browser: Browser, location: Path, width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
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


def test_figures_wait_until_they_are_looked_at(tab: Tab) -> None:
    drawn = "plots => plots.filter(plot => plot.dataset.drawn).length"
    tab.page.wait_for_timeout(300)
    assert tab.page.eval_on_selector_all(".plot", drawn) < 3
    tab.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn === 'done')", timeout=60_000
    )


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
    locations = write_papers(charts, str(tmp_path / "png"))
    assert len(locations) == len(charts) >= 12
    for chart, location in zip(charts, locations, strict=True):
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
