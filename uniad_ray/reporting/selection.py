"""Selects the categories that a report details, and the images of its galleries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from uniad_ray.reporting.model import (
    CategoryResult,
    GalleryImage,
    GallerySection,
    Outcome,
    PartRow,
    PartsSummary,
    SectionKind,
)
from uniad_ray.runs.parts import Part
from uniad_ray.runs.scored_images import ScoredImages

MAX_DETAILED = 12
MAX_CARDS = 144
_MOST_PER_SECTION = 12
_SECTIONS = 4
MAX_PARTS = 100
GALLERY_COLUMNS = ("row_key", "source_uri", "split", "defect_kind", "anomaly_type", "experts", "reasons", "metadata")
"""Columns of schema `score` that a gallery needs in addition to those of all scored images."""


def detailed_categories(categories: Sequence[CategoryResult]) -> tuple[str, ...]:
    """Names of the categories with charts and a gallery, sorted: at most `MAX_DETAILED`.

    If there are more, the largest fraction of wrong decisions comes first, then unlabelled categories by the fraction
    of images called anomalous.
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
    """Number of images per gallery section that keeps all galleries together within `MAX_CARDS`."""
    return min(_MOST_PER_SECTION, MAX_CARDS // (_SECTIONS * max(1, detailed)))


def gallery(images: ScoredImages, per_section: int) -> tuple[GallerySection, ...]:
    """Chooses the highest, borderline and wrong images of one category; ties are ordered by row key.

    Borderline images are the nearest to the threshold, half of them above it. Misses start with the lowest score.

    Args:
        images: Scored images of the category, with all columns in `GALLERY_COLUMNS`.
        per_section: Maximum number of images per section.
    """
    keys = images.row_keys.to_numpy(zero_copy_only=False)
    rising = np.lexsort((keys, images.scores))
    falling = np.lexsort((keys, -images.scores))
    half = per_section // 2
    above = rising[images.called[rising]][:half]
    below = falling[~images.called[falling]][: per_section - half]
    chosen: dict[SectionKind, tuple[int, Iterable[int]]] = {
        "highest": (len(images.scores), falling[:per_section]),
        "borderline": (len(images.scores), [*above[::-1], *below]),
        "false_alarms": (int(images.false_alarms.sum()), falling[images.false_alarms[falling]][:per_section]),
        "misses": (int(images.misses.sum()), rising[images.misses[rising]][:per_section]),
    }
    return tuple(
        GallerySection(
            kind=kind,
            total=total,
            images=tuple(_shown(images.take(np.array(positions, dtype=np.intp)))),
        )
        for kind, (total, positions) in chosen.items()
        if total
    )


def _shown(images: ScoredImages) -> Iterator[GalleryImage]:
    rows = images.details.select([*GALLERY_COLUMNS]).to_pylist()
    in_review = images.equals("decision", "review") if "decision" in images.details.column_names else images.called
    for row, label, score, called, doubtful in zip(
        rows, images.labels, images.scores, images.called, in_review, strict=True
    ):
        decision = "anomalous" if called else "review" if doubtful else "normal"
        experts, metadata = row.pop("experts"), row.pop("metadata")
        yield GalleryImage(
            **row,
            label=label,
            score=score,
            decision=decision,
            outcome=_outcome(label, decision),
            calibrated={entry["expert"]: entry["calibrated"] for entry in experts},
            metadata={entry["name"]: entry["value"] for entry in metadata},
        )


def parts_summary(parts: Sequence[Part]) -> PartsSummary | None:
    """Counts the parts of a run and lists the first that need a look; None if there are no parts."""
    if not parts:
        return None
    anomalous = [part for part in parts if part.decision == "anomalous"]
    undecided = [part for part in parts if part.decision is None]
    in_review = [part for part in parts if part.decision == "review"]
    for own in (anomalous, in_review):
        own.sort(key=lambda part: (-(part.margin or 0.0), part.serial))
    names = PartRow.model_fields
    return PartsSummary(
        total=len(parts),
        anomalous=len(anomalous),
        undecided=len(undecided),
        in_review=len(in_review),
        listed=tuple(
            PartRow(**{name: getattr(part, name) for name in names})
            for part in [*anomalous, *undecided, *in_review][:MAX_PARTS]
        ),
    )


def _outcome(label: str | None, decision: str) -> Outcome | None:
    if label is None:
        return None
    if label == "anomalous":
        return "found" if decision == "anomalous" else "missed"
    return "false_alarm" if decision == "anomalous" else "passed"
