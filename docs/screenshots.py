"""Take the screenshots of docs/images: both pages of a running endpoint, and a report.

Usage, while `make serve` runs: python docs/screenshots.py http://localhost:8000 REPORT.html IMAGE; needs Playwright and
chromium. IMAGE should be anomalous.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
MOVED_THRESHOLD = 1.2
"""Factor of the previewed threshold, so that some decisions change."""


def score_page(page: Any, url: str, image: str) -> None:
    """The score page with the verdict of an image."""
    page.goto(url)
    page.set_input_files("#file", image)
    page.wait_for_selector("#nearest img", timeout=120_000)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / "page-score.png", full_page=True)


def runs_page(page: Any, url: str) -> None:
    """The runs page with a previewed threshold, ordered by the distance to it."""
    page.goto(f"{url}/runs")
    page.wait_for_selector("#tiles img")
    page.select_option("#order", "threshold")
    threshold = float(page.input_value("#threshold-number"))
    page.fill("#threshold-number", f"{MOVED_THRESHOLD * threshold:.1f}")
    page.press("#threshold-number", "Enter")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / "page-runs.png")


def report(page: Any, path: str) -> None:
    """The top of a report."""
    page.goto(Path(path).resolve().as_uri())
    page.screenshot(path=IMAGES / "report.png")


def main(url: str, path: str, image: str) -> None:
    """Takes all screenshots."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        score_page(browser.new_page(viewport={"width": 1000, "height": 800}), url, image)
        runs_page(browser.new_page(viewport={"width": 1180, "height": 880}), url)
        report(browser.new_page(viewport={"width": 1100, "height": 1400}), path)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
