"""Optuna's dashboard of searches in a real browser: Chromium, headless, on loopback."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.optional import find_program, require

require("playwright", "optuna_dashboard", "chromium")
from playwright.sync_api import Browser, Page, sync_playwright

from pixeltune.report.dashboard_server import DashboardServer
from pixeltune.results.optuna_storage import ReadOnlyStorage
from tests.support.made_up_search import write_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardServer]:
    """A dashboard of two searches with 60 trials each, and galleries of the first."""
    folder = tmp_path_factory.mktemp("results")
    stores = [write_results(str(folder), name, trials=60, seed=seed) for seed, name in enumerate(("one", "two"))]
    for row in stores[0].trials()[:12]:
        location = Path(stores[0].gallery(row["trial"]))
        location.parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").convert("RGB").save(location, "PNG")
    with DashboardServer(ReadOnlyStorage(str(folder))) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    opened.errors = []  # type: ignore[attr-defined]
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))  # type: ignore[attr-defined]
    yield opened
    assert opened.errors == []  # type: ignore[attr-defined]
    context.close()


def study_id(server: DashboardServer, name: str) -> int:
    import json
    import urllib.request

    with urllib.request.urlopen(server.url.replace("/dashboard", "/api/studies"), timeout=20) as answer:
        studies = json.load(answer)["study_summaries"]
    return int(next(each["study_id"] for each in studies if each["study_name"] == name))


def colours(page: Page, name: str) -> int:
    """Return how many colours other than greys a figure has on the screen."""
    page.locator(f"#{name}").scroll_into_view_if_needed()
    with Image.open(io.BytesIO(page.locator(f"#{name}").screenshot())) as image:
        found = image.convert("RGB").getcolors(2**24) or []
        assert min(image.size) > 200
    return sum(max(rgb) - min(rgb) > 40 for _, rgb in found if isinstance(rgb, tuple))


def require_plot(page: Page, name: str, marks: str, least: int) -> None:
    """Wait until a figure has this many marks, and check that they are coloured."""
    page.wait_for_function(
        "([marks, least]) => document.querySelectorAll(marks).length >= least",
        arg=[f"#{name} {marks}", least],
        timeout=60_000,
    )
    page.wait_for_timeout(500)  # WebGL draws after its canvas is there
    assert colours(page, name) > 5, name


def test_history_importances_and_curves_are_drawn(page: Page, server: DashboardServer) -> None:
    page.goto(f"{server.url}/studies/{study_id(server, 'one')}")
    require_plot(page, "plot-history", ".scatterlayer .point", 40)
    require_plot(page, "graph-hyperparameter-importances", ".barlayer .point", 6)
    require_plot(page, "graph-timeline", ".barlayer .point", 50)
    require_plot(page, "graph-intermediate-values", ".scatterlayer .js-line", 40)
    search = server.storage.search(study_id(server, "one"))
    [best] = [trial for trial in search.trials() if trial._trial_id in search.best()]
    page.get_by_text(f"Best Trial (number={best.number})").wait_for()
    page.get_by_text(str(best.value), exact=True).wait_for()


def test_parallel_coordinates_are_drawn(page: Page, server: DashboardServer) -> None:
    page.goto(f"{server.url}/studies/{study_id(server, 'one')}/smartSelection")
    require_plot(page, "plot-parallel-coordinate", ".parcoords .axis-title", 6)
    titles = page.locator("#plot-parallel-coordinate .axis-title").all_text_contents()
    assert {"optim.lr", "model.layers"} <= {title.removeprefix("Param ") for title in titles}, titles


def test_searches_are_compared(page: Page, server: DashboardServer) -> None:
    ids = [study_id(server, name) for name in ("one", "two")]
    page.goto(f"{server.url}/compare-studies?ids={ids[0]},{ids[1]}")
    require_plot(page, "plot-history", ".scatterlayer .point", 80)
    legend = page.locator("#plot-history .legendtext").all_text_contents()
    assert {"Best Value of one", "Best Value of two"} <= set(legend)
    require_plot(page, "plot-edf-0", ".scatterlayer .js-line", 2)


def test_a_gallery_is_shown_and_a_note_is_refused(page: Page, server: DashboardServer) -> None:
    page.goto(f"{server.url}/studies/{study_id(server, 'one')}/trials?numbers=3")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 256)", timeout=60_000)
    page.get_by_text("00003.png").wait_for()
    page.goto(f"{server.url}/studies/{study_id(server, 'one')}/note")
    page.locator("button:has(svg[data-testid=EditIcon])").first.click()
    page.locator("textarea").first.fill("a note")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("only read here").first.wait_for()
    [error] = page.errors  # type: ignore[attr-defined]
    assert "only read here" in error
    page.errors.clear()  # type: ignore[attr-defined]
