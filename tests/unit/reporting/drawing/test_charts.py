"""Charts as inline SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from support.reports import HOSTILE, labelled_table, rows_of, score_table

from uniad_ray.reporting.distributions import curves, score_histogram
from uniad_ray.reporting.drawing.charts import histogram_chart, precision_recall_chart, roc_chart
from uniad_ray.reporting.model import Curves


def found_curves() -> Curves:
    found = curves(rows_of(labelled_table()))
    assert found is not None
    return found


def all_charts(identity: str = "one") -> list[str]:
    histogram = score_histogram(rows_of(labelled_table(anomaly_types=[None] * 5 + ["logical"] * 2 + ["structural"])))
    return [
        histogram_chart(histogram, 0.5, identity=identity, label="scores"),
        roc_chart(found_curves(), identity=identity, label="roc"),
        precision_recall_chart(found_curves(), identity=identity, label="precision"),
    ]


def words(svg: str) -> list[str]:
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]  # noqa: S314


def test_text_stays_text() -> None:
    histogram, roc, precision = (words(svg) for svg in all_charts())
    assert {"score", "images", "normal", "logical anomalies", "structural anomalies", "threshold"} <= set(histogram)
    assert {"false-positive rate", "recall", "at the threshold"} <= set(roc)
    assert {"recall", "precision", "at the threshold"} <= set(precision)


def test_colours_are_those_of_the_page() -> None:
    for svg in all_charts():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg))
        assert colours <= {"none", "currentColor"} | {colour for colour in colours if colour.startswith("var(--")}
        assert "currentColor" in colours
        assert not re.search("#[0-9a-f]{6}", svg)


def test_charts_obey_the_policy_and_share_no_ids() -> None:
    first, second = "".join(all_charts("one")), "".join(all_charts("two"))
    for svg in (first, second):
        assert " style=" not in svg
        assert "<style" not in svg
        assert "<metadata" not in svg
        assert "http://www.w3.org/2000/svg" not in svg
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    for own, text in zip(ids, (first, second), strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', text)) <= own


def test_bytes_do_not_depend_on_user_settings() -> None:
    expected = all_charts()
    with mpl.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert all_charts() == expected
        assert dict(mpl.rcParams) == before


def test_labels_are_escaped() -> None:
    svg = roc_chart(found_curves(), identity="one", label=HOSTILE)
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).get("aria-label") == HOSTILE.replace("\n", " ")  # noqa: S314


@pytest.mark.parametrize(("images", "logarithmic"), [(40, False), (5000, True)])
def test_many_images_give_a_logarithmic_axis(images: int, logarithmic: bool) -> None:
    scores = np.random.default_rng(0).normal(0, 0.1, images)
    histogram = score_histogram(rows_of(score_table(scores, [None] * images)))
    ticks = words(histogram_chart(histogram, 0.5, identity="one", label="scores"))
    assert ("100" in ticks) == logarithmic


def test_undefined_precision_has_no_point() -> None:
    found = curves(rows_of(labelled_table(threshold=5.0)))
    assert found is not None
    assert "at the threshold" not in words(precision_recall_chart(found, identity="one", label="precision"))
