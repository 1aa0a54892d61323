"""The catalogue of metrics."""

from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.metrics.catalogue import CATALOGUE, CatalogueEntry, columns, find
from uniad_ray.metrics.image import confusion, image_auroc
from uniad_ray.metrics.pixel import AUROC_CURVE, PixelMetrics

LABELS = np.array([0, 0, 0, 1, 1], dtype=bool)
SCORES = np.array([0.1, 0.7, 0.3, 0.9, 0.6])


def value(entry: CatalogueEntry, labels: np.ndarray, scores: np.ndarray, threshold: float) -> float | None:
    """Computes an entry from images; pixel metrics use one map made of the scores."""
    if entry.of_scores is not None:
        return entry.of_scores(labels, scores)
    if entry.of_decisions is not None:
        return entry.of_decisions(confusion(labels, scores, threshold))
    assert entry.of_pixels is not None
    pixels = PixelMetrics()
    pixels.update(scores[np.newaxis].astype(np.float16), labels[np.newaxis])
    return pixels.area(entry.of_pixels)


def test_entries_compute_their_metrics_by_hand() -> None:
    # Five of the six pairs are in order; at 0.5 one of three normal images is called anomalous, and both others are.
    expected = {
        ("image_auroc", None): 5 / 6,
        ("image_average_precision", None): (1 + 2 / 3) / 2,
        ("image_f1_max", None): 2 * 2 / (3 + 2),
        ("recall", None): 1.0,
        ("false_positive_rate", None): 1 / 3,
        ("precision", None): 2 / 3,
        ("threshold_at_f1_max", None): 0.45,
        ("threshold_at_fpr", 0.01): 0.7,
        ("recall_at_fpr", 0.01): 0.5,
        ("pixel_auroc", None): 5 / 6,
        # Half of the only defect is above every normal pixel, and all of it only from a rate of 1/3 on.
        ("pixel_aupro", 0.3): 0.5,
        ("pixel_spro", 0.01): 0.5,
        ("pixel_spro", 0.05): 0.5,
        ("pixel_spro", 0.1): 0.5,
        ("pixel_spro", 0.3): 0.5,
        ("pixel_spro", 1.0): 5 / 6,
    }
    found = {(entry.key, entry.limit): value(entry, LABELS, SCORES, 0.5) for entry in CATALOGUE}
    assert found == pytest.approx(expected)


def test_perfect_scores_have_the_better_value() -> None:
    perfect, reversed_scores = np.where(LABELS, 0.9, 0.1), np.where(LABELS, 0.1, 0.9)
    for entry in CATALOGUE:
        best, worst = value(entry, LABELS, perfect, 0.5), value(entry, LABELS, reversed_scores, 0.5)
        assert best is not None
        assert worst is not None
        if entry.better is None:
            assert entry.unit == "score"
        elif entry.better == "higher":
            assert worst < best == 1
        else:
            assert worst > best == 0


def test_metrics_that_need_normal_images_are_undefined_without() -> None:
    labels, scores = np.ones(2, dtype=bool), np.array([0.2, 0.6])
    found = {entry.key for entry in CATALOGUE if value(entry, labels, scores, 0.5) is not None}
    assert found == {"recall", "precision"}


def test_keys_and_limits_are_unique_and_found() -> None:
    keys = [(entry.key, entry.limit) for entry in CATALOGUE]
    assert len(set(keys)) == len(keys)
    assert [find(*key) for key in keys] == list(CATALOGUE)
    assert find("pixel_spro", 0.2) is None
    assert find("nothing", None) is None


def test_titles_end_with_the_limit() -> None:
    entry = CatalogueEntry("new", "New metric", "new", limit=0.05, of_scores=image_auroc)
    assert (entry.title, entry.short_title) == ("New metric@0.05", "new@0.05")
    entry = CatalogueEntry("new", "New metric", of_scores=image_auroc)
    assert (entry.title, entry.short_title) == ("New metric", "New metric")


def test_columns_are_those_of_the_table() -> None:
    assert [entry.short_title for entry in columns("terminal")] == [
        "image AUROC",
        "AP",
        "F1-max",
        "pixel AUROC",
        "AUPRO@0.3",
        "sPRO@0.05",
    ]
    assert [entry.short_title for entry in columns("terminal comparison")] == [
        "image AUROC",
        "recall",
        "false alarms",
        "AUPRO@0.3",
        "sPRO@0.05",
    ]
    assert {entry.limit for entry in columns("report") if entry.key == "pixel_spro"} == {0.01, 0.05, 0.1, 0.3, 1.0}


def test_entry_needs_exactly_one_computation() -> None:
    with pytest.raises(ValueError, match="new: give one of of_scores, of_decisions and of_pixels"):
        CatalogueEntry("new", "New")
    with pytest.raises(ValueError, match="new: give one of"):
        CatalogueEntry("new", "New", of_scores=image_auroc, of_pixels=AUROC_CURVE)
    with pytest.raises(ValueError, match="new: of_experts needs of_scores"):
        CatalogueEntry("new", "New", of_pixels=AUROC_CURVE, of_experts=True)
