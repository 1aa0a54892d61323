"""Selection of detailed categories and gallery images."""

from __future__ import annotations

import pyarrow as pa
from support.reports import category_result, labelled_table, rows_of, score_table

from uniad_ray.reporting.selection import MAX_CARDS, MAX_DETAILED, detailed_categories, gallery, images_per_section

SECTIONS = 4


def test_all_scored_categories_are_detailed_if_few() -> None:
    rows = rows_of(labelled_table())
    categories = [category_result("b", rows), category_result("a", rows), category_result("c")]
    assert detailed_categories(categories) == ("a", "b")


def test_wrong_then_anomalous_categories_come_first() -> None:
    rows = rows_of(score_table([0.1, 0.9], ["normal", "anomalous"]))
    unlabelled = rows_of(score_table([0.1, 0.9], [None, None]))
    right = [category_result(f"right{index:02d}", rows) for index in range(MAX_DETAILED - 2)]
    wrong = [category_result("wrong", rows, false_alarms=1)]
    quiet = [category_result(f"quiet{index}", unlabelled, called_anomalous=0) for index in range(3)]
    loud = [category_result("loud", unlabelled, called_anomalous=2)]
    chosen = detailed_categories([*quiet, *right, *loud, *wrong])
    assert set(chosen) == {"wrong", "loud", *(entry.category for entry in right)}
    assert list(chosen) == sorted(chosen)
    assert len(detailed_categories([*right, *wrong, *right, *quiet])) == MAX_DETAILED


def test_galleries_stay_within_their_bound() -> None:
    for detailed in range(MAX_DETAILED + 1):
        assert detailed * SECTIONS * images_per_section(detailed) <= MAX_CARDS
        assert images_per_section(detailed) >= 3


def test_sections_are_sorted() -> None:
    scores = [0.10, 0.20, 0.48, 0.70, 0.90, 0.05, 0.45, 0.52, 0.95, 0.99]
    labels: list[str | None] = ["normal"] * 5 + ["anomalous"] * 5
    sections = {entry.kind: entry for entry in gallery(rows_of(score_table(scores, labels)), 4)}
    shown = {kind: [image.score for image in section.images] for kind, section in sections.items()}
    assert shown == {
        "highest": [0.99, 0.95, 0.90, 0.70],
        "borderline": [0.70, 0.52, 0.48, 0.45],
        "false_alarms": [0.90, 0.70],
        "misses": [0.05, 0.45],
    }
    assert {kind: section.total for kind, section in sections.items()} == {
        "highest": 10,
        "borderline": 10,
        "false_alarms": 2,
        "misses": 2,
    }
    assert [image.outcome for image in sections["borderline"].images] == ["false_alarm", "found", "passed", "missed"]


def test_review_is_shown_but_not_called() -> None:
    table = score_table([0.1, 0.4, 0.9], [None] * 3)
    place = table.column_names.index("decision")
    table = table.set_column(place, "decision", pa.array(["normal", "review", "anomalous"]))
    shown = gallery(rows_of(table), 4)[0].images
    assert [image.decision for image in shown] == ["anomalous", "review", "normal"]


def test_without_labels_nothing_is_wrong() -> None:
    sections = gallery(rows_of(score_table([0.1, 0.9], [None, None])), 4)
    assert [entry.kind for entry in sections] == ["highest", "borderline"]
    assert {image.outcome for entry in sections for image in entry.images} == {None}


def test_equal_scores_go_by_row_key() -> None:
    table = score_table([0.9] * 6, ["normal"] * 6)
    shuffled = table.take([3, 1, 5, 0, 4, 2])
    for section in gallery(rows_of(shuffled), 3):
        keys = [image.row_key for image in section.images]
        assert sorted(keys) == ["part-000000", "part-000001", "part-000002"][: len(keys)]


def test_gallery_image_has_the_fields_of_its_row() -> None:
    table = labelled_table(reasons=("patch: strongest there",), anomaly_types=[None] * 4 + ["logical"] * 4)
    values = pa.array([[{"name": "serial", "value": "A-17"}]] * 8, table.schema.field("metadata").type)
    table = table.set_column(table.column_names.index("metadata"), "metadata", values)
    image = gallery(rows_of(table), 1)[0].images[0]
    assert image.model_dump() == {
        "row_key": "part-000007",
        "source_uri": "s3://plant/part/000007.png",
        "split": "test",
        "label": "anomalous",
        "defect_kind": "dent",
        "anomaly_type": "logical",
        "score": 1.0,
        "decision": "anomalous",
        "outcome": "found",
        "reasons": ("patch: strongest there",),
        "calibrated": {"patch": 1.0, "student": 0.5},
        "metadata": {"serial": "A-17"},
        "caption": None,
    }
