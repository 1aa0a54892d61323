"""The HTML report: content, safety, accessibility and size."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support.reports import HOSTILE, labelled_table, make_metric, make_report, score_table, with_choices
from support.trees import mask_png, png

from uniad_ray.reporting.drawing.pictures import Picture, draw_picture, missing_picture
from uniad_ray.reporting.html import render_html
from uniad_ray.reporting.markdown import render_markdown
from uniad_ray.reporting.model import ImageErrorRow, Report, TimingRow
from uniad_ray.reporting.selection import MAX_CARDS, MAX_DETAILED, images_per_section, parts_summary
from uniad_ray.reporting.wording import visible
from uniad_ray.runs.parts import Part

VOID = {"meta", "link", "img", "input", "br", "wbr", "use", "path"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails if tags do not nest."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(data.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def pictures_of(report: Report, picture: Picture | None = None) -> dict[str, Picture]:
    scale = report.details[0].map_scale
    drawn = picture or draw_picture(png(0, 64), (64, 64), [mask_png(64)], np.eye(8, dtype=np.float16), scale)
    return {image.row_key: drawn for detail in report.details for section in detail.gallery for image in section.images}


def whole_report() -> Report:
    metrics = (
        make_metric("image_auroc", 0.8),
        make_metric("image_auroc", 0.75, expert="patch"),
        make_metric("pixel_spro", 0.5, limit=0.05),
        make_metric("image_auroc", 0.7, group="anomaly_type", name="logical"),
        make_metric("threshold_at_f1_max", 0.45),
    )
    timing = TimingRow(
        started_at="2026-11-21T10:00:00.123+00:00",
        images=100,
        workers=2,
        threads=1,
        device="cpu",
        decode=1.0,
        score=8.0,
        write=0.5,
        wall=10.0,
    )
    error = ImageErrorRow(category="part", source_uri="s3://plant/broken.png", kind="truncated", text="ends early")
    return with_choices(make_report({"part": labelled_table()}, metrics=metrics, errors=(error,), timings=(timing,)))


def page_of(report: Report, pictures: dict[str, Picture] | None = None) -> Page:
    return Page(render_html(report, pictures_of(report) if pictures is None else pictures))


def test_page_describes_the_run_and_its_results() -> None:
    text = page_of(whole_report()).text
    for words in (
        "Run 0123456789abcdef of 9 images",
        "d" * 64,
        "1 of 4 (25.0 %)",
        "80.0 75.0\N{EN DASH}85.0",
        "sPRO @0.05",
        "logical anomalies",
        "highest F1 0.45",
        "At the threshold, 75.0 % of the anomalous images are found",
        "Experts of part: the score of an image is the sum of weight \N{MULTIPLICATION SIGN} calibrated score",
        "AUROC alone, synthetic anomalies (surface)",
        "student 0 would add too little 34.5",
        "Highest scores (4 of 8)",
        "Wrong: missed anomalies (1 of 1)",
        "anomaly missed",
        "1 image could not be scored (truncated: 1)",
        "s3:/ / plant/ broken.png",
        "2026-11-21 10:00:00",
        "20261121-100000-abcdef01",
        "pypi:wheel/ weights.pth",
        "1 % false alarms, gaussian tail",
    ):
        assert words in text, words


def test_parts_and_metadata_are_shown() -> None:
    (detail,) = make_report({"part": labelled_table()}).details
    image = detail.gallery[0].images[0].model_copy(update={"metadata": {"serial": "A-17", HOSTILE: HOSTILE}})
    sections = (detail.gallery[0].model_copy(update={"images": (image,)}),)
    parts = parts_summary(
        [
            Part("A-17", "anomalous", 2, 1, 0, 1.25, "top", "k", "anomalous", ("side", "top")),
            Part("A-18", None, 1, 0, 1, None, None, None, None, ("top",)),
            Part("A-19", "normal", 2, 0, 0, -0.5, "top", "k", "normal", ("top",)),
            Part("A-21", "review", 1, 0, 0, -0.1, "top", "k", "normal", ("top",)),
            Part("A-20", "anomalous", 2, 2, 0, 3.5, "top", "k", None, ("top",)),
        ]
    )
    assert parts is not None
    assert [part.serial for part in parts.listed] == ["A-20", "A-17", "A-18", "A-21"]
    report = make_report({"part": labelled_table()}).model_copy(
        update={"details": (detail.model_copy(update={"gallery": sections}),), "parts": parts}
    )
    text = render_html(report, pictures_of(report)).decode()
    assert "serial: A-17" in text
    assert HOSTILE not in text
    assert "5 parts, which are images with the same serial: 2 with an anomalous view, 1 undecided" in text
    assert "could not be scored, 1 for review." in text
    assert "5 parts by serial: 2 anomalous, 1 undecided" in render_markdown(report).decode()
    without = make_report({"part": labelled_table()})
    assert "Parts" not in render_html(without, pictures_of(without)).decode()


def test_images_for_review_are_counted_if_there_are_any() -> None:
    report = whole_report()
    assert "For review" not in page_of(report).text
    categories = tuple(entry.model_copy(update={"in_review": 2}) for entry in report.categories)
    text = page_of(report.model_copy(update={"categories": categories})).text
    assert "For review" in text
    assert "uniad-ray threshold" in text


def test_the_same_report_gives_the_same_bytes() -> None:
    report = whole_report()
    assert render_html(report, pictures_of(report)) == render_html(report, pictures_of(report))


def test_page_loads_nothing_and_has_a_strict_policy() -> None:
    data = render_html(whole_report(), pictures_of(whole_report()))
    page = Page(data)
    assert page.all("script") == []
    style = re.search(rb"<style>(.*?)</style>", data, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value)


def test_external_names_are_escaped() -> None:
    table = labelled_table(category=HOSTILE, defect_kind=HOSTILE, name=HOSTILE, reasons=(HOSTILE,))
    error = ImageErrorRow(category=HOSTILE, source_uri=HOSTILE, kind=HOSTILE, text=HOSTILE)
    metrics = (
        make_metric("image_auroc", 0.8, category=HOSTILE),
        make_metric("image_auroc", 0.8, category=HOSTILE, group="defect_kind", name=HOSTILE),
        make_metric("image_auroc", 0.8, category=HOSTILE, expert=HOSTILE),
    )
    report = make_report({HOSTILE: table}, metrics=metrics, errors=(error,))
    page = page_of(report, pictures_of(report, missing_picture(HOSTILE)))
    assert page.all("script") == []
    text = "".join(page.texts)
    assert text.count(visible(HOSTILE)) > 10
    assert "\u202e" not in text


def test_references_resolve_and_ids_are_unique() -> None:
    tables = {name: labelled_table(category=name) for name in ("a", "b")}
    page = page_of(make_report(tables))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {attributes["href"][1:] for attributes in page.all("a") + page.all("use")}
    wanted |= {label["for"] for label in page.all("label")}
    wanted |= {value for _, found in page.elements for value in found.get("aria-labelledby", "").split()}
    assert wanted <= set(ids)


def test_page_is_accessible_to_screen_readers() -> None:
    page = page_of(whole_report())
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert all("alt" in image for image in page.all("img"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.all("svg"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert all(table.get("aria-label") for table in page.all("table"))
    assert page.all("html") == [{"lang": "en"}]


def test_unlabelled_report_omits_labelled_parts() -> None:
    text = page_of(make_report({"part": score_table([0.1, 0.9], [None, None])})).text
    for words in (
        "False alarms",
        "Misses",
        "ROC",
        "Wrong",
        "Split test; threshold 0.50;",
        "could not be scored (",
        "Times",
    ):
        assert words not in text
    for words in ("Called anomalous", "Highest scores", "Borderline", "Lineage"):
        assert words in text


def test_switches_exist_only_for_existing_layers() -> None:
    report = whole_report()
    switches = [item for item in page_of(report).all("input") if item["id"].count("-") == 1]
    assert [item["class"] for item in switches] == ["all-heat", "all-outlines"]
    bare = page_of(report, pictures_of(report, draw_picture(png(0), (48, 48), [], None, report.details[0].map_scale)))
    assert bare.all("input") == []
    assert "Heat maps show" not in bare.text


def test_missing_picture_is_explained_in_its_place() -> None:
    report = whole_report()
    page = page_of(report, pictures_of(report, missing_picture("The archive cannot be read.")))
    assert page.text.count("The archive cannot be read.") == sum(len(part.images) for part in report.details[0].gallery)
    assert page.all("input") == []


def test_random_weights_warning_comes_first() -> None:
    text = page_of(make_report({"part": labelled_table()}, random_weights=True)).text
    assert text.index("Random weights.") < text.index("Results")
    assert "Random weights" not in page_of(whole_report()).text


@pytest.mark.parametrize("labelled", [True, False])
def test_large_report_stays_below_ten_megabytes(labelled: bool) -> None:
    # The worst case: many categories, all wrong, long names, and pictures and masks of pure noise.
    generator = np.random.default_rng(0)
    per_category, categories = 100, 500
    long = "x" * 150
    tables = {}
    metrics = []
    for index in range(categories):
        name = f"{index:04d}{long}"
        kinds: list[str | None] = [["normal", "anomalous"][image % 2] for image in range(per_category)]
        tables[name] = score_table(
            generator.normal(0, 1, per_category),
            kinds if labelled else [None] * per_category,
            category=name,
            name=long * 6,
            reasons=(long * 4,) * 12,
        )
        groups = [("all", "all"), *(("defect_kind", f"{kind}{long}") for kind in range(60))]
        for group, kind in groups if labelled and index < MAX_DETAILED else groups[:labelled]:
            metrics += [
                make_metric(metric, 0.5, category=name, group=group, name=kind, limit=limit)
                for metric, limit in (("image_auroc", None), ("pixel_auroc", None), ("pixel_spro", 0.1))
            ]
    errors = tuple(ImageErrorRow(category=long * 3, source_uri=long * 9, kind=long, text=long * 9) for _ in range(100))
    report = make_report(
        tables,
        metrics=tuple(metrics),
        errors=errors,
        per_section=images_per_section(MAX_DETAILED),
        detailed=MAX_DETAILED,
    )
    assert report.run.images - report.run.errors == 50_000
    noise = generator.integers(0, 256, (640, 640, 4), dtype=np.uint8)
    scale = report.details[0].map_scale
    picture = draw_picture(
        encoded_png(noise[..., :3]),
        (640, 640),
        [encoded_png(np.where(noise[..., 3] > 250, np.uint8(255), np.uint8(0)))],
        (noise[:64, :64, 0] / 64).astype(np.float16),
        scale,
    )
    pictures = pictures_of(report, picture)
    data = render_html(report, pictures)
    cards = data.count(b'<li class="card">')
    assert cards == (MAX_CARDS if labelled else MAX_CARDS // 2)
    assert len(data) < 10 * 2**20


def encoded_png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()
