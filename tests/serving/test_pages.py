"""The web pages in a real browser, with the real application; only the scorer is a fake."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.anomalous_backend import AnomalousBackend
from support.browser import BROWSER, LAPTOP, NO_BROWSER, PHONE, POOR_CONTRAST, running_browser, watch
from support.image_bytes import encode
from support.running_api import running_api
from support.served_runs import Key, endpoint_with_runs, run_images, write_served_run
from support.trees import png

from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.reviews import read_marks
from uniad_ray.serving.asgi import create_api

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

KEYS = {
    "anna": Key("anna-key", ("score", "runs", "review")),
    "looker": Key("looker-key", ("runs",)),
}
IMAGES = 30
VIEWS = [("light", LAPTOP), ("dark", LAPTOP), ("light", PHONE), ("dark", PHONE)]


@dataclass
class Site:
    """A running endpoint and its pages.

    Attributes:
        open: Opens a path in a new window.
        run: The run it shows.
    """

    open: Callable[..., Any]
    run: Location


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as started:
        yield started


@pytest.fixture
def make_site(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start an endpoint; after the test, check for requests to other hosts and for console messages."""
    pages: list[Any] = []
    with ExitStack() as running:

        def make(keys: dict[str, Key] | None = None) -> Site:
            run = write_served_run(tmp_path, run_images(IMAGES))
            endpoint = endpoint_with_runs(tmp_path, {"night": run.uri}, keys=keys, backend=AnomalousBackend())
            url = running.enter_context(running_api(create_api(endpoint)))

            def open_page(path: str, scheme: str = "light", viewport: dict[str, int] = LAPTOP) -> Any:
                context = running.enter_context(browser.new_context(viewport=viewport, color_scheme=scheme))
                page = watch(context.new_page())
                page.home = url
                page.set_default_timeout(120_000)  # the browser may get little of a busy machine
                page.goto(f"{url}{path}")
                pages.append(page)
                return page

            return Site(open_page, run)

        yield make
        for page in pages:
            assert [url for url in page.requested if not url.startswith((page.home, "data:", "blob:"))] == []
            # The browser logs this when a key is required.
            assert [text for text in page.messages if "401 (Unauthorized)" not in text] == []


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def drop_image(page: Any, name: str = "dropped.png", data: bytes | None = None) -> None:
    """Drop an image on the page, as from a folder."""
    page.locator("#category option").first.wait_for(state="attached")
    script = """([bytes, name]) => {
      const dropped = new DataTransfer();
      dropped.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
      return dropped;
    }"""
    dropped = page.evaluate_handle(script, [list(data or png(1, spot=True)), name])
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.locator("#result").wait_for()


def opacity(page: Any) -> str:
    return str(page.eval_on_selector("#map", "canvas => getComputedStyle(canvas).opacity"))


def coloured(page: Any, canvas: str) -> int:
    """Count the coloured pixels of a map."""
    script = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
      .filter((value, index) => index % 4 === 3 && value > 0).length"""
    return int(page.eval_on_selector(canvas, script))


def open_runs(site: Site, query: str = "", **options: Any) -> Any:
    page = site.open(f"/runs{query}", **options)
    # Tiles and threshold are requested together, and either may arrive first.
    page.locator(".tile").first.wait_for()
    wait_for_text(page, "#change", "anomalous")
    return page


def names(page: Any) -> list[str]:
    return [Path(text).stem for text in page.locator(".tile .note").all_inner_texts()]


def wait_for_text(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for()


def test_dropped_image_shows_verdict_map_and_experts(site: Site) -> None:
    page = site.open("/")
    drop_image(page)
    assert page.locator("#verdict").inner_text() == "Anomalous"
    assert page.evaluate("document.activeElement.id") == "verdict"
    assert page.locator("#score").inner_text() == "Score 5.25, threshold 2.00 · dropped.png"
    assert page.locator("#reasons li").all_inner_texts() == [
        "1 of part-5 expected, 0 found",
        "patch: strongest in the middle",
    ]
    assert page.locator("#experts .bar").count() == 2
    widths = page.eval_on_selector_all("#experts rect", "bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert widths[0] > 50
    assert widths[1] == 0
    assert page.locator("#left-out").inner_text() == "text similarity: left out, no text within 2 seconds"
    assert opacity(page) == "0.6"
    assert 10 < coloured(page, "#map") < 256
    page.locator("#opacity").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert opacity(page) == "0.7"
    assert page.locator("#opacity-value").inner_text() == "70 %"
    page.get_by_text("Lineage", exact=True).click()
    assert "bundle version" in page.locator("#lineage").inner_text()


@pytest.mark.parametrize(("dtype", "value", "shown"), [(np.uint8, 120, 120), (np.uint16, 2048, 128)])
def test_dropped_image_is_shown_as_it_was_scored(site: Site, dtype: type[np.generic], value: int, shown: int) -> None:
    page = site.open("/")
    drop_image(page, data=encode(np.full((16, 16), value, dtype), "PNG"))
    script = """async image => {
      await image.decode();
      const context = document.createElement("canvas").getContext("2d");
      context.drawImage(image, 0, 0);
      return [image.naturalWidth, ...context.getImageData(8, 8, 1, 1).data];
    }"""
    found = page.eval_on_selector("#image", script)
    assert found == [16, *[pytest.approx(shown, abs=2)] * 3, 255]


def test_nearest_normal_images_are_shown(site: Site) -> None:
    page = site.open("/")
    page.locator("#category option").first.wait_for(state="attached")
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(sink, "JPEG")
    thumbnail = base64.b64encode(sink.getvalue()).decode()
    nearest = [{"image": "train/good/003.png", "distance": 0.5, "thumbnail": thumbnail}]

    def add_nearest(route: Any) -> None:
        response = route.fetch()
        document = response.json()
        document["images"][0]["nearest"] = nearest
        route.fulfill(response=response, json=document)

    page.route("**/score?map=png&nearest=3", add_nearest)
    drop_image(page)
    assert page.locator("#nearest figcaption").all_inner_texts() == ["good/003.png"]
    assert page.locator("#nearest img").get_attribute("alt") == "Similar normal image: train/good/003.png"


def test_invalid_file_shows_error(site: Site) -> None:
    page = site.open("/")
    page.locator("#category option").first.wait_for(state="attached")
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"nonsense"})
    wait_for_text(page, "#message.error", "the file is none of JPEG, PNG")
    assert not page.locator("#result").is_visible()
    page.messages = [text for text in page.messages if "422" not in text]


def test_key_dialog_opens_if_key_is_required(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(KEYS)
    page = site.open("/")
    dialog = page.locator("#key-dialog")
    dialog.wait_for()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    wait_for_text(page, "#message.error", "unknown access key")
    dialog.wait_for()
    page.get_by_label("Key", exact=True).fill("anna-key")
    page.get_by_role("button", name="Use key").click()
    drop_image(page)
    assert page.locator("#verdict").inner_text() == "Anomalous"
    page.goto(f"{page.home}/runs")
    page.locator(".tile img").first.wait_for()
    assert page.locator("#key-button").is_visible()


def test_key_without_review_cannot_mark(make_site: Callable[..., Site]) -> None:
    page = make_site(KEYS).open("/runs")
    page.get_by_label("Key", exact=True).fill("looker-key")
    page.keyboard.press("Enter")
    page.locator(".tile button").first.click()
    page.locator("#detail").wait_for()
    assert page.locator("#detail-marks button:enabled").count() == 0
    assert "This access key cannot set marks." in page.locator("#detail-marked").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    wait_for_text(page, "#message.error", "This access key cannot set marks.")


def test_filters_and_pages_are_kept_in_url(site: Site) -> None:
    page = open_runs(site)
    assert page.locator("#place").inner_text() == "1 to 24 of 31 images"
    assert names(page)[:2] == ["029", "028"]
    page.locator(".next").first.click()
    wait_for_text(page, "#place", "25 to 31 of 31 images")
    assert names(page) == ["005", "004", "003", "002", "001", "000", "broken"]
    assert page.locator(".next").first.is_disabled()
    page.get_by_label("Decision", exact=True).select_option("Normal")
    wait_for_text(page, "#place", "1 to 2 of 2 images")
    assert names(page) == ["001", "000"]
    page.get_by_label("Decision", exact=True).select_option("Not scored")
    wait_for_text(page, "#place", "1 to 1 of 1 image")
    assert "PNG: ends early" in page.locator(".tile").inner_text()
    page.get_by_label("Decision", exact=True).select_option("All")
    page.get_by_label("Min score").fill("3")
    page.get_by_label("Max score").fill("6")
    page.keyboard.press("Enter")
    page.get_by_label("Order", exact=True).select_option("Lowest first")
    wait_for_text(page, ".tile >> nth=0", "003.png")
    assert names(page) == ["003", "004", "005"]
    assert page.url.endswith("/runs?run=night&category=lids&min_score=3&max_score=6&order=lowest")
    # The URL restores the same view.
    assert names(open_runs(site, page.url.partition("/runs")[2])) == ["003", "004", "005"]
    page.go_back()
    page.wait_for_url("**/runs?run=night&category=lids&min_score=3&max_score=6")
    wait_for_text(page, ".tile >> nth=0", "005.png")
    page.get_by_label("Category", exact=True).select_option("trays")
    wait_for_text(page, "#place", "No images match the filters.")


def test_moved_threshold_previews_changes(site: Site) -> None:
    page = open_runs(site)
    wait_for_text(page, "#change", "Stored threshold: 28 of 30 images anomalous.")
    assert page.get_by_role("button", name="Reset to 2.00").is_disabled()
    assert page.locator(".tile.anomalous").count() == 24
    page.get_by_label("Threshold value").fill("20")
    # Tiles change before the response arrives.
    assert page.locator(".tile.normal.changed").count() == 14
    assert "stored: anomalous" in page.locator(".tile.changed").first.inner_text()
    wait_for_text(
        page, "#change", "18 decisions change: 0 to anomalous, 18 to normal. 10 of 30 images anomalous (stored: 28)."
    )
    wait_for_text(page, "#change", "(stored: 13 false alarms, 1 miss).")
    assert float(page.locator("#threshold").input_value()) == pytest.approx(20, abs=0.05)
    page.wait_for_url("**threshold=20")
    page.get_by_label("Decision", exact=True).select_option("Anomalous")
    wait_for_text(page, "#place", "1 to 10 of 10 images")
    page.locator("#threshold").focus()
    page.keyboard.press("Home")
    wait_for_text(page, "#place", "1 to 24 of 30 images")
    wait_for_text(page, "#change", "2 decisions change: 2 to anomalous")
    page.get_by_role("button", name="Reset to 2.00").click()
    wait_for_text(page, "#place", "1 to 24 of 28 images")
    wait_for_text(page, "#change", "Stored threshold: 28 of 30 images anomalous.")
    assert "threshold" not in page.url


def test_slow_run_is_retried(site: Site) -> None:
    page = site.open("/")
    is_slow = True

    def refuse_while_slow(route: Any) -> None:
        if not is_slow:
            route.continue_()
            return
        problem = {"type": "/problems/deadline-exceeded", "title": "Late", "status": 504, "detail": "try again"}
        route.fulfill(status=504, content_type="application/problem+json", json=problem)

    page.route("**/v1/runs/night/images*", refuse_while_slow)
    page.goto(f"{page.home}/runs")
    wait_for_text(page, "#message", "Still reading the run.")
    is_slow = False
    page.locator(".tile").first.wait_for()
    page.messages = [text for text in page.messages if "504" not in text]


def test_marks_are_set_by_keyboard_and_survive_reload(site: Site) -> None:
    page = open_runs(site)
    page.locator("#change").filter(has_text="13 false alarms").wait_for()
    page.locator(".tile button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#detail").wait_for()
    assert page.locator("#detail-title").inner_text() == "lids/028.png"
    page.locator("#detail-image[src]").wait_for()
    wait_for_text(page, "#detail-map-note", "Yellow: near the threshold.")
    assert coloured(page, "#detail-map") > 10
    assert page.locator("#detail-reasons").inner_text() == "patch: reason 28"
    assert page.locator("#detail-experts .bar").count() == 2
    page.keyboard.press("f")
    wait_for_text(page, "#detail-message", "False alarm: lids/028.png")
    assert page.locator("[data-mark=false_alarm]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#detail-title", "lids/027.png")
    # An anomalous decision cannot be a miss.
    page.keyboard.press("m")
    page.keyboard.press("r")
    wait_for_text(page, "#detail-message", "Right: lids/027.png")
    page.keyboard.press("Escape")
    wait_for_text(page, ".tile:focus-within", "027.png")
    marks = read_marks(site.run).values()
    assert sorted((mark.mark, mark.score, mark.threshold, mark.reviewer) for mark in marks) == [
        ("confirmed", 27.5, 2.0, "everybody"),
        ("false_alarm", 28.5, 2.0, "everybody"),
    ]
    page.reload()
    wait_for_text(page, ".tile >> nth=1", "False alarm")
    wait_for_text(page, ".tile >> nth=2", "Right")
    page.get_by_label("Mark", exact=True).select_option("False alarm")
    wait_for_text(page, "#place", "1 to 1 of 1 image")
    page.locator(".tile button").focus()
    page.keyboard.press("w")
    wait_for_text(page, "#message", "Mark withdrawn: lids/028.png")
    assert [mark.mark for mark in read_marks(site.run).values()] == ["confirmed"]


def test_mark_stores_moved_threshold_and_note(site: Site) -> None:
    page = open_runs(site, "?threshold=29")
    page.locator(".tile button").nth(1).click()
    page.locator("#detail").wait_for()
    assert page.locator("#detail-decision").inner_text().startswith("Normal (stored: anomalous) · score 28.50")
    page.get_by_label("Note", exact=True).fill("from the lower edge")
    page.get_by_role("button", name="Miss").click()
    wait_for_text(page, "#detail-message", "Miss: lids/028.png")
    (mark,) = read_marks(site.run).values()
    assert (mark.mark, mark.threshold, mark.note) == ("miss", 29.0, "from the lower edge")


def test_keyboard_turns_pages(site: Site) -> None:
    page = open_runs(site)
    page.locator(".tile button").first.focus()
    page.keyboard.press("n")
    wait_for_text(page, "#place", "25 to 31")
    page.keyboard.press("p")
    wait_for_text(page, "#place", "1 to 24")
    page.locator(".tile button").nth(23).click()
    wait_for_text(page, "#detail-title", "lids/006.png")
    page.get_by_role("button", name="Next").last.click()
    wait_for_text(page, "#detail-title", "lids/005.png")
    assert page.locator("#place").inner_text() == "25 to 31 of 31 images"


def test_all_controls_are_reachable_by_tab(site: Site) -> None:
    page = open_runs(site)
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.id || document.activeElement.innerText.split('\\n')[0],"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    order = [name for name, _ in reached]
    wanted = ["run", "category", "decision", "mark", "min_score", "max_score", "order", "threshold", "threshold-number"]
    assert order[: 4 + len(wanted)] == ["Skip to content", "Score an image", "Runs", *wanted, "Next"]
    assert {outline for _, outline in reached} == {"solid"}


@pytest.mark.parametrize(("scheme", "viewport"), VIEWS)
def test_pages_have_contrast_and_fit_screen(site: Site, scheme: str, viewport: dict[str, int]) -> None:
    def check(page: Any) -> None:
        assert page.evaluate(POOR_CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]

    page = site.open("/", scheme, viewport)
    drop_image(page, "a-file-with-a-long-name-that-has-no-place-to-be-broken-at-all-but-must-be-shown.png")
    page.get_by_text("Lineage", exact=True).click()
    check(page)
    page = open_runs(site, "?threshold=20", scheme=scheme, viewport=viewport)
    page.get_by_text("Keyboard shortcuts", exact=True).click()
    page.locator(".tile button").first.focus()
    page.keyboard.press("r")
    wait_for_text(page, ".tile .mark", "Right")
    check(page)
    page.keyboard.press("Enter")
    wait_for_text(page, "#detail-map-note", "Yellow")
    page.locator("#detail summary").click()
    check(page)
    assert page.eval_on_selector("#detail", "dialog => dialog.scrollWidth <= dialog.clientWidth")
