"""What a report of a large search costs: `uv run python benchmarks/report.py [--trials 1000]`.

Makes a search up, writes its report in a process of its own, and opens it in headless Chromium without a network:
seconds until DOMContentLoaded, the first paint, and the first figure; then until the last one, scrolled to one by one.
Prints rows for RESULTS.md, medians of `--times`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.support.made_up_search import write_results

_PAINTS = """() => new Promise(resolve => {
  const look = () => {
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    paint ? resolve(paint.startTime) : requestAnimationFrame(look);
  };
  look();
})"""
_DRAWN = "index => document.querySelectorAll('.plot')[index].dataset.drawn === 'done'"
_LOADED = "() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    os.fsync = lambda _: None  # type: ignore[assignment]
    print("| date | trials | written s | MB | DOM s | first paint s | first figure s | all figures s |")
    print("|---|---|---|---|---|---|---|---|")
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as folder:
            write_results(folder, "large", trials=trials, reports=20)
            page = Path(folder, "large-report.html")
            seconds = _written(folder, page)
            with sync_playwright() as playwright:
                path = shutil.which("chromium") or shutil.which("google-chrome")
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                opened = [_opened(browser, page) for _ in range(options.times)]
                browser.close()
            medians = " | ".join(f"{statistics.median(times):.2f}" for times in zip(*opened, strict=True))
            size = page.stat().st_size / 1e6
            print(f"| {datetime.now(UTC):%Y-%m-%d} | {trials:,} | {seconds:.1f} | {size:.1f} | {medians} |", flush=True)


def _written(folder: str, page: Path) -> float:
    command = [sys.executable, "-m", "pixeltune", "report", "large", "--storage", folder, "--out", str(page)]
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def _opened(browser: Browser, page: Path) -> tuple[float, float, float, float]:
    """Seconds from the start of the navigation: DOMContentLoaded, first paint, first figure, last figure."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    begin = time.monotonic()
    tab.goto(page.as_uri(), wait_until="domcontentloaded")
    loaded, paint = tab.evaluate(_LOADED) / 1000, tab.evaluate(_PAINTS) / 1000
    count = tab.evaluate("document.querySelectorAll('.plot').length")
    drawn = []
    for index in range(count):
        tab.evaluate("index => document.querySelectorAll('.plot')[index].scrollIntoView()", index)
        tab.wait_for_function(_DRAWN, arg=index, timeout=120_000)
        drawn.append(time.monotonic() - begin)
    context.close()
    return loaded, paint, drawn[0], drawn[-1]


if __name__ == "__main__":
    main()
