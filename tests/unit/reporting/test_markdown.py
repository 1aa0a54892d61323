"""The tables of a report as Markdown."""

from __future__ import annotations

import re

from support.reports import HOSTILE, labelled_table, make_metric, make_report, score_table, with_choices

from uniad_ray.reporting.markdown import MAX_ERROR_ROWS, MAX_ROWS, render_markdown
from uniad_ray.reporting.model import ImageErrorRow, TimingRow

TIMING = TimingRow(
    started_at="2026-11-21T10:00:00+00:00",
    images=100,
    workers=2,
    threads=1,
    device="cpu",
    decode=1.0,
    score=8.0,
    write=0.5,
    wall=10.0,
)


PAGE = """\
## Anomaly report, run 0123456789abcdef

9 images, 4 called anomalous, 1 could not be scored. \
Archive s3://plant/archives/2026-11-21, digest dddddddddddd; uniad\\_ray 0.1.0.

- 2 images have no label and are left out

| Category | Images | Errors | Called anomalous | Threshold | False alarms | Misses |
| --- | --- | --- | --- | --- | --- | --- |
| part | 8 | 1 | 4 of 7 (57.1 %) | 0.50 | 1 of 4 (25.0 %) | 1 of 4 (25.0 %) |

Metrics in per cent, with 95 % intervals:

| Anomalies | Normal | Anomalous | Image AUROC |
| --- | --- | --- | --- |
| all anomalies | 40 | 20 | 80.0 (75.0\N{EN DASH}85.0) |

### part

| Anomalies | Normal | Anomalous | Image AUROC |
| --- | --- | --- | --- |
| all anomalies | 40 | 20 | 80.0 (75.0\N{EN DASH}85.0) |
| dent | 40 | 20 | 70.0 (65.0\N{EN DASH}75.0) |
| hole | 40 | 20 | - |

### Experts of part

| Expert | Weight | Reason |
| --- | --- | --- |
| patch | 1 | always takes part |
| student | 0 | would add too little |

### Errors (1)

| Category | Kind | Problem | Image |
| --- | --- | --- | --- |
| part | truncated | PNG: ends early | s3://a/b.png |

### Times

| Started (UTC) | Images | Decode | Score | Write | Elapsed |
| --- | --- | --- | --- | --- | --- |
| 2026-11-21T10:00:00+00:00 | 100 | 1.0 s | 8.0 s | 0.5 s | 10.0 s |

### Bundles

| Category | Bundle | Digest | Profile and experts | Fit images | Calibration |
| --- | --- | --- | --- | --- | --- |
| part | 20261121-100000-abcdef01 | cccccccccccc | embedded: patch, student | 160 | holdout, 40 held out |
"""


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table, split like Markdown does."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_every_table_is_there_and_rectangular() -> None:
    metrics = (
        make_metric("image_auroc", 0.8),
        make_metric("pixel_spro", None, limit=0.05),
        make_metric("pixel_spro", 0.5, limit=0.3),
        make_metric("image_auroc", 0.7, group="defect_kind", name="dent"),
    )
    errors = (ImageErrorRow(category="part", source_uri="s3://a/b.png", kind="truncated", text="PNG: ends early"),)
    report = make_report({"part": labelled_table()}, metrics=metrics, errors=errors, timings=(TIMING,))
    text = render_markdown(with_choices(report))
    decisions, summary, groups, choices, failed, times, bundles = tables(text.decode())
    for table in (decisions, summary, groups, choices, failed, times, bundles):
        assert len({len(row) for row in table}) == 1
    assert decisions[2] == ["part", "8", "1", "4 of 7 (57.1 %)", "0.50", "1 of 4 (25.0 %)", "1 of 4 (25.0 %)"]
    assert summary[0] == ["Anomalies", "Normal", "Anomalous", "Image AUROC", "sPRO@0.3"]
    assert groups[3] == ["dent", "40", "20", "70.0 (65.0\N{EN DASH}75.0)", "-"]
    assert choices[2:] == [["patch", "1", "always takes part"], ["student", "0", "would add too little"]]
    assert failed[2] == ["part", "truncated", "PNG: ends early", "s3://a/b.png"]
    assert times[2] == ["2026-11-21T10:00:00+00:00", "100", "1.0 s", "8.0 s", "0.5 s", "10.0 s"]
    assert bundles[2][3:] == ["embedded: patch, student", "160", "holdout, 40 held out"]


def test_external_names_are_escaped() -> None:
    errors = (ImageErrorRow(category=HOSTILE, source_uri=HOSTILE, kind="truncated", text=HOSTILE),)
    metrics = (
        make_metric("image_auroc", 0.8, category=HOSTILE),
        make_metric("image_auroc", 0.8, category=HOSTILE, name=HOSTILE),
    )
    text = render_markdown(make_report({HOSTILE: labelled_table(category=HOSTILE)}, metrics=metrics, errors=errors))
    for table in tables(text.decode()):
        assert len({len(row) for row in table}) == 1
    assert "<script" not in text.decode().replace("\\<script", "")
    assert "\u202e" not in text.decode()


def test_empty_tables_are_left_out() -> None:
    text = render_markdown(make_report({"part": score_table([0.1, 0.9], [None, None])})).decode()
    assert len(tables(text)) == 2
    for word in ("Misses", "AUROC", "Errors (", "Times", "Random weights"):
        assert word not in text


def test_long_category_tables_are_cut() -> None:
    many = {f"c{index:03d}": score_table([0.1], [None], category=f"c{index:03d}") for index in range(MAX_ROWS + 5)}
    text = render_markdown(make_report(many)).decode()
    assert text.count("… and 5 more.") == 2


def test_random_weights_warning_comes_first() -> None:
    text = render_markdown(make_report({"part": labelled_table()}, random_weights=True)).decode()
    assert text.splitlines()[2] == "**Random weights: scores and metrics are meaningless.**"


def test_whole_page() -> None:
    errors = (ImageErrorRow(category="part", source_uri="s3://a/b.png", kind="truncated", text="PNG: ends early"),)
    metrics = (
        make_metric("image_auroc", 0.8),
        make_metric("image_auroc", 0.7, group="defect_kind", name="dent"),
        make_metric("image_auroc", None, group="defect_kind", name="hole"),
    )
    report = make_report({"part": labelled_table()}, metrics=metrics, errors=errors, timings=(TIMING,))
    assert render_markdown(with_choices(report)).decode() == PAGE


def test_unreadable_bundle_has_a_reason() -> None:
    report = make_report({"part": labelled_table()})
    gone = report.categories[0].model_copy(update={"lineage": None, "lineage_problem": "gone|away"})
    text = render_markdown(report.model_copy(update={"categories": (gone,)})).decode()
    assert text.endswith("| part | 20261121-100000-abcdef01 | cccccccccccc | gone\\|away |  |  |\n")


def test_long_error_table_is_cut() -> None:
    error = ImageErrorRow(category="part", source_uri="s3://a/b.png", kind="truncated", text="PNG: ends early")
    text = render_markdown(make_report({"part": labelled_table()}, errors=(error,) * (MAX_ERROR_ROWS + 7))).decode()
    assert text.count("PNG: ends early") == MAX_ERROR_ROWS
    assert "|\n\n… and 7 more.\n\n### Bundles\n" in text
