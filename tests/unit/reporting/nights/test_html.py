from __future__ import annotations

from typing import Any

from uniad_ray.alarms.rules import Alarm
from uniad_ray.nights.model import NightCounts, NightSummary
from uniad_ray.reporting.html import MAX_CATEGORY_ROWS
from uniad_ray.reporting.nights.html import render_nights


def night(name: str, **given: Any) -> NightSummary:
    fields: dict[str, Any] = {
        "night": name,
        "started_at": f"{name}T01:30:00+00:00",
        "run_id": "r",
        "images": 40,
        "errors": 0,
        "anomalous": 2,
        "rejected_files": 0,
        "waiting": {},
        "categories": {"<nut>": NightCounts(images=40, errors=0, anomalous=2, bundle_version="v1")},
        "medians": {"<nut>": {"brightness": 121.25}},
        "findings": (),
        "alarms": (),
        "notes": (),
    }
    return NightSummary(**{**fields, **given})


def page(*nights: NightSummary) -> str:
    given = {"reports": {"2026-01-01": "runs/2026-01-01/report/report.html"}, "image_auroc": {}}
    return render_nights(nights, work="/w", **given).decode()  # type: ignore[arg-type]


def test_nights_are_listed_with_numbers_alarms_and_reports() -> None:
    alarm = Alarm(kind="drift", category="<nut>", text="<nut>: images are brighter")
    found = page(night("2026-01-01"), night("2026-01-02", alarms=(alarm,)))
    assert found.index('<th scope="row">2026-01-02</th>') < found.index('<th scope="row">2026-01-01</th>')
    assert found.count('href="runs/') == 1
    assert "2 of 40 (5.0 %)" in found
    assert "121.25" in found
    assert "&lt;nut&gt;: images are brighter" in found
    assert "<nut>" not in found
    assert found.count('<svg class="chart"') == 2
    assert "2 nights, 1 night with alarms." in found
    assert " style=" not in found
    assert "<script" not in found


def test_nights_without_images_and_without_any_night_are_pages() -> None:
    empty = night("2026-01-01", images=0, anomalous=0, categories={}, medians={}, run_id=None)
    assert "Last night with images: - %." in page(empty)
    assert "No night yet." in page()


def test_images_for_review_have_their_own_numbers() -> None:
    counts = NightCounts(images=40, errors=0, anomalous=2, in_review=4, bundle_version="v1")
    found = page(night("2026-01-01", in_review=4, categories={"nut": counts}))
    assert found.count("4 of 40 (10.0 %)") == 2
    assert "<dt>For review</dt>" in found
    assert "<dt>For review</dt>" not in page(night("2026-01-01"))


def test_categories_beyond_the_limit_are_said_and_those_with_alarms_are_shown() -> None:
    counts = NightCounts(images=1, errors=0, anomalous=0, bundle_version="v1")
    many = {f"c{number:05d}": counts for number in range(MAX_CATEGORY_ROWS + 3)}
    last = max(many)
    found = page(night("2026-01-01", categories=many, alarms=(Alarm(kind="drift", category=last, text="x"),)))
    assert f">{last}</h2>" in found
    assert ">c00000</h2>" in found
    assert "3 more categories are not shown" in found
    assert "not shown" not in page(night("2026-01-01"))
