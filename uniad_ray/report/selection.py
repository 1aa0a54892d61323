"""Which categories a report details, and which images its galleries show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from uniad_ray.report.model import CategoryResult, GalleryImage, GallerySection, Outcome, SectionKind
from uniad_ray.report.scored import ScoredRows

MAX_DETAILED = 12
MAX_CARDS = 144
_MOST_PER_SECTION = 12
_SECTIONS = 4


def detailed_categories(categories: Sequence[CategoryResult]) -> tuple[str, ...]:
    """Names of the categories that get charts and a gallery, by name: at most `MAX_DETAILED`.

    Of more, those with the largest share of wrong decisions come first, then, where there are no labels, those with
    the largest share of images called anomalous.
    """
    with_scores = [entry for entry in categories if entry.threshold is not None]
    chosen = sorted(with_scores, key=_urgency)[:MAX_DETAILED]
    return tuple(sorted(entry.category for entry in chosen))


def _urgency(entry: CategoryResult) -> tuple[bool, float, str]:
    judged = entry.normal_images + entry.anomalous_images
    if judged:
        return False, -(entry.false_alarms + entry.misses) / judged, entry.category
    return True, -entry.called_anomalous / max(1, entry.images), entry.category


def images_per_section(detailed: int) -> int:
    """How many images a section of the gallery shows, so that all galleries together stay below `MAX_CARDS`."""
    return min(_MOST_PER_SECTION, MAX_CARDS // (_SECTIONS * max(1, detailed)))


def gallery(rows: ScoredRows, per_section: int) -> tuple[GallerySection, ...]:
    """Chooses the highest, the borderline and the wrong images of one category; ties go by row key.

    Borderline are the images nearest to the threshold, half of them from above. Misses come lowest first.

    Args:
        rows: Rows of the category.
        per_section: Most images a section.
    """
    keys = rows.table.column("row_key").to_numpy(zero_copy_only=False)
    rising = np.lexsort((keys, rows.scores))
    falling = np.lexsort((keys, -rows.scores))
    half = per_section // 2
    above = rising[rows.called[rising]][:half]
    below = falling[~rows.called[falling]][: per_section - half]
    chosen: dict[SectionKind, tuple[int, Iterable[int]]] = {
        "highest": (len(rows.scores), falling[:per_section]),
        "borderline": (len(rows.scores), [*above[::-1], *below]),
        "false_alarms": (int(rows.false_alarms.sum()), falling[rows.false_alarms[falling]][:per_section]),
        "misses": (int(rows.misses.sum()), rising[rows.misses[rising]][:per_section]),
    }
    return tuple(
        GallerySection(
            kind=kind,
            total=total,
            images=tuple(_image(row) for row in rows.table.take(np.asarray(positions, dtype=np.int64)).to_pylist()),
        )
        for kind, (total, positions) in chosen.items()
        if total
    )


def _image(row: dict[str, Any]) -> GalleryImage:
    return GalleryImage(
        row_key=row["row_key"],
        source_uri=row["source_uri"],
        split=row["split"],
        label=row["label"],
        defect_kind=row["defect_kind"],
        anomaly_type=row["anomaly_type"],
        score=row["score"],
        decision=row["decision"],
        outcome=_outcome(row["label"], row["decision"]),
        reasons=tuple(row["reasons"]),
        calibrated={entry["expert"]: entry["calibrated"] for entry in row["experts"]},
    )


def _outcome(label: str | None, decision: str) -> Outcome | None:
    if label is None:
        return None
    if label == "anomalous":
        return "found" if decision == "anomalous" else "missed"
    return "false_alarm" if decision == "anomalous" else "passed"
