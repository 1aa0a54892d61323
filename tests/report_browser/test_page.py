"""The HTML report in a real browser: loading, switches, layout and contrast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import BROWSER, LAPTOP, NO_BROWSER, PHONE, POOR_CONTRAST, running_browser, watch
from support.reports import HOSTILE
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.reporting.build import report

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def page_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with every part: labels, masks, maps, errors, hostile names and an unreadable image."""
    root = tmp_path_factory.mktemp("browser")
    rows, columns = np.mgrid[0:16, 0:16]
    peak = np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / 20)
    name = HOSTILE.replace("/", "")
    images = [
        *(
            ScoredImage(f"good{i}{name}.png", png(i), 0.15 * i, anomaly_map=(0.1 * i * peak).astype(np.float16))
            for i in range(6)
        ),
        *(
            ScoredImage(
                f"bad{i}.png",
                png(50 + i, spot=True),
                0.3 * i,
                "anomalous",
                HOSTILE if i % 2 else "dent",
                "logical" if i % 2 else "structural",
                anomaly_map=(i * peak).astype(np.float16),
                masks=(mask_png(),),
                reasons=(HOSTILE,),
            )
            for i in range(6)
        ),
        ScoredImage("unreadable.png", b"nonsense", 2.0, "anomalous", "dent"),
        ScoredImage("broken.png", b"nonsense", None, "anomalous", "dent"),
    ]
    run = write_run(root / "run", write_archive(root / "archive", images), images)
    return Path(report(run.uri, resamples=20).path).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as started:
        yield started


@pytest.fixture
def open_page(browser: Any, page_uri: str) -> Iterator[Any]:
    contexts = []

    def open_at(viewport: dict[str, int], **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, offline=True, **options)
        contexts.append(context)
        page = watch(context.new_page())
        page.set_default_timeout(120_000)  # the browser may get little of a busy machine
        page.goto(page_uri)
        return page

    yield open_at
    for context in contexts:
        context.close()


def test_page_loads_without_requests_or_messages(open_page: Any, page_uri: str) -> None:
    page = open_page(LAPTOP)
    assert page.messages == []
    assert [url for url in page.requested if not url.startswith("data:")] == [page_uri]
    pictures = page.eval_on_selector_all(
        "img", "images => images.map(image => image.complete && image.naturalWidth > 0)"
    )
    assert len(pictures) > 20
    assert all(pictures)


def test_policy_allows_the_styles_and_charts(open_page: Any) -> None:
    page = open_page(LAPTOP)
    assert page.eval_on_selector("body", "body => getComputedStyle(body).maxWidth") != "none"
    drawn = page.eval_on_selector_all(
        "svg.chart", "charts => charts.map(chart => chart.getBoundingClientRect().height > 100)"
    )
    assert drawn == [True] * 3
    stroke = page.eval_on_selector_all("svg.chart path", "paths => paths.map(path => getComputedStyle(path).stroke)")
    assert any(colour.startswith("rgb") for colour in stroke)


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP, {"width": 320, "height": 640}])
def test_page_is_never_wider_than_the_screen(open_page: Any, viewport: dict[str, int]) -> None:
    page = open_page(viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page: Any, colour_scheme: str) -> None:
    page = open_page(LAPTOP, color_scheme=colour_scheme)
    assert page.evaluate(POOR_CONTRAST) == []
    page.evaluate("document.querySelector('h1').style.color = 'grey'")
    page.evaluate("document.querySelector('h1').style.backgroundColor = 'darkgrey'")
    assert [text.split(" ", 1)[1] for text in page.evaluate(POOR_CONTRAST)] == ["Anomaly report"]


def shown(page: Any, selector: str) -> set[str]:
    return set(page.eval_on_selector_all(selector, "layers => layers.map(layer => getComputedStyle(layer).visibility)"))


def test_global_switches_toggle_all_overlays(open_page: Any) -> None:
    page = open_page(LAPTOP)
    assert shown(page, ".heat") == shown(page, ".outline") == {"visible"}
    page.get_by_label("Heat maps").click()
    assert (shown(page, ".heat"), shown(page, ".outline")) == ({"hidden"}, {"visible"})
    page.get_by_label("Mask outlines").click()
    assert (shown(page, ".heat"), shown(page, ".outline")) == ({"hidden"}, {"hidden"})
    page.get_by_label("Heat maps").click()
    assert (shown(page, ".heat"), shown(page, ".outline")) == ({"visible"}, {"hidden"})


def test_keyboard_toggles_one_heat_map(open_page: Any) -> None:
    page = open_page(LAPTOP)
    page.locator(".own-heat").first.focus()
    page.keyboard.press("Space")
    states = page.eval_on_selector_all(".heat", "layers => layers.map(layer => getComputedStyle(layer).visibility)")
    assert states == ["hidden"] + ["visible"] * (len(states) - 1)


def test_print_shows_overlays_and_hides_switches(open_page: Any) -> None:
    page = open_page(LAPTOP, color_scheme="dark")
    page.get_by_label("Heat maps").click()
    page.emulate_media(media="print")
    assert shown(page, ".heat") == shown(page, ".outline") == {"visible"}
    assert not page.locator("nav").is_visible()
    assert not page.get_by_label("Heat maps").is_visible()
    assert page.eval_on_selector("body", "body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")
