"""Operating points of a bundle: what a threshold costs and finds, and a new version with another threshold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, ConfigError
from uniad_ray.evaluation.labelled_images import LabelledImages, labelled_images
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviewed_labels import NO_MARKS, marks_of
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import FloatArray, Threshold, choose_threshold
from uniad_ray.scoring.tail import rate_above

RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
"""False-positive rates of the table."""


class OperatingPoint(StrictModel):
    """One threshold of a category.

    Attributes:
        threshold: Scores above it are anomalous.
        chosen_for: What the threshold was chosen for, such as `1 % false alarms`.
        is_current: Whether it is the threshold of the bundle.
        expected_rate: Fraction of new normal images expected above it.
        rate_interval: 90 % interval of that fraction.
        false_alarms: Normal images of the labelled run above it; None without a run.
        found: Anomalous images of the run above it; None without a run.
    """

    threshold: float
    chosen_for: str
    is_current: bool
    expected_rate: float
    rate_interval: tuple[float, float]
    false_alarms: int | None = None
    found: int | None = None


class ThresholdReport(StrictModel):
    """The operating points of a category, and the version with a new threshold.

    Attributes:
        bundles: Root of the bundles.
        category: The category.
        version: Version that the table describes.
        held_out_images: Held-out normal images behind the expected rates.
        run: Root of the labelled run; None without one.
        normal_images: Normal images of the run.
        anomalous_images: Anomalous images of the run.
        points: The table, by threshold; if a version was published, only its threshold.
        review_threshold: Lower threshold for review; None without review.
        published: The new version; None if no threshold was chosen.
    """

    bundles: str
    category: str
    version: str
    held_out_images: int
    run: str | None
    normal_images: int
    anomalous_images: int
    points: tuple[OperatingPoint, ...]
    review_threshold: float | None
    published: str | None


def set_threshold(
    bundles: str,
    category: str,
    *,
    value: float | None = None,
    false_positive_rate: float | None = None,
    from_run: str | None = None,
    misses: int | None = None,
    review_rate: float | None = None,
) -> ThresholdReport:
    """Show the operating points of a category's published bundle, or publish a version with another threshold.

    Args:
        bundles: Root of the bundles.
        category: Category with a published bundle.
        value: Publish this threshold.
        false_positive_rate: Publish the threshold for this rate of false alarms, in (0, 1).
        from_run: Root of a run with labels or marks, scored by the same fit.
        misses: Publish the highest threshold with at most this many misses in the run.
        review_rate: Publish a second, lower threshold for this fraction of normal images; 0 removes it.

    Raises:
        ConfigError: Options contradict each other or are out of range.
        BundleError: The category has no published bundle, or another fit scored the run.
        RunError: The run is unfinished or corrupt.
    """
    chosen = [option for option in (value, false_positive_rate, misses) if option is not None]
    if len(chosen) > 1:
        raise ConfigError("choose one of --value, --false-positive-rate and --misses")
    if misses is not None and from_run is None:
        raise ConfigError("--misses needs the labelled run of --from-run")
    if value is not None and not np.isfinite(value):
        raise ConfigError(f"--value: {value} is not a finite number")
    if false_positive_rate is not None and not 0 < false_positive_rate < 1:
        raise ConfigError(f"--false-positive-rate: {false_positive_rate:g} is not between 0 and 1")
    if review_rate is not None and not 0 <= review_rate < 1:
        raise ConfigError(f"--review-rate: {review_rate:g} is not between 0 and 1")
    store = BundleStore(bundles)
    bundle = store.load(category)
    scores = bundle.held_out_scores.fused
    labelled = None if from_run is None else _labelled(RunReader(from_run), bundle, store)
    threshold = _chosen(scores, labelled, value, false_positive_rate, misses)
    review = bundle.manifest.calibration.review
    if review_rate is not None:
        threshold = threshold or bundle.manifest.calibration.threshold
        review = choose_threshold(scores, review_rate) if review_rate else None
    if threshold is not None and review is not None and review.value >= threshold.value:
        source = "the threshold for review stays at" if review_rate is None else f"--review-rate: {review_rate:g} gives"
        raise ConfigError(
            f"{source} {review.value:.3f}, which is not below the threshold {threshold.value:.3f}; give a larger "
            "--review-rate, or 0 to remove it"
        )
    published = None
    if threshold is None:
        candidates = _candidates(bundle, scores, labelled)
    else:
        origin = {"run": from_run, "misses": misses} if misses is not None else {}
        written = store.write_threshold(bundle, threshold, review, origin)
        store.publish(category, written.version)
        published = written.version
        candidates = [(threshold.value, _asked(threshold, misses))]
    current = threshold or bundle.manifest.calibration.threshold
    return ThresholdReport(
        bundles=store.root.uri,
        category=category,
        version=bundle.manifest.version,
        held_out_images=len(scores),
        run=from_run,
        normal_images=0 if labelled is None else int(labelled.normal.sum()),
        anomalous_images=0 if labelled is None else int(labelled.anomalous.sum()),
        points=tuple(_point(each, asked, current.value, scores, labelled) for each, asked in candidates),
        review_threshold=None if review is None else review.value,
        published=published,
    )


def threshold_with_misses(labelled: LabelledImages, misses: int) -> float:
    """Return the highest threshold at which at most `misses` anomalous images are not above it.

    It lies halfway between the lowest score that must be found and the next lower score of any labelled image.

    Args:
        labelled: Labelled images with at least one anomalous one.
        misses: Number of misses, at least 0 and below the number of anomalous images.

    Raises:
        ConfigError: There are too few anomalous images.
    """
    anomalous = np.sort(labelled.scores[labelled.anomalous])
    if not 0 <= misses < len(anomalous):
        raise ConfigError(
            f"--misses: {misses} of {len(anomalous)} anomalous images of {labelled.category}; give at least 0 and "
            "fewer than there are, and label anomalous images or mark misses in the run"
        )
    lowest_found = float(anomalous[misses])
    below = labelled.scores[labelled.scores < lowest_found]
    return (lowest_found + float(below.max())) / 2 if len(below) else float(np.nextafter(lowest_found, -np.inf))


def _labelled(reader: RunReader, bundle: Bundle, store: BundleStore) -> LabelledImages:
    """Return the labelled images of the category, and check that the run's scores are those of the bundle."""
    category, plan = bundle.manifest.category, reader.manifest.plan
    if category not in plan.bundles:
        raise BundleError(f"{reader.location}: the run has no category {category!r}; it has {', '.join(plan.bundles)}")
    planned = plan.bundles[category]
    if planned.digest != bundle.manifest.digest:
        known = [entry for entry in store.versions(category).manifests if entry.digest == planned.digest]
        if not known or known[0].content_digest != bundle.manifest.content_digest:
            raise BundleError(
                f"{reader.location}: {category} was scored with version {planned.version}, another fit than the "
                f"published version {bundle.manifest.version}; its scores are on another scale, so score again"
            )
    if plan.options.experts is not None:
        raise BundleError(f"{reader.location}: scored with some of the experts; use a run without --experts")
    found = [entry for entry in labelled_images(reader, marks_of([reader]) or NO_MARKS) if entry.category == category]
    if not found or not len(found[0]):
        raise BundleError(f"{reader.location}: no image of {category} has a label or a mark; label images at ingest")
    return found[0]


def _chosen(
    scores: FloatArray, labelled: LabelledImages | None, value: float | None, rate: float | None, misses: int | None
) -> Threshold | None:
    if rate is not None:
        return choose_threshold(scores, rate)
    if misses is not None and labelled is not None:
        return _at(scores, threshold_with_misses(labelled, misses), "from_run")
    return None if value is None else _at(scores, value, "set_by_hand")


def _at(scores: FloatArray, value: float, method: str) -> Threshold:
    expected = rate_above(scores, value)
    return Threshold.model_validate(
        {
            "value": value,
            "false_positive_rate": expected.expected,
            "method": method,
            "images": len(scores),
            "rate_interval": (expected.low, expected.high),
        }
    )


def _candidates(bundle: Bundle, scores: FloatArray, labelled: LabelledImages | None) -> list[tuple[float, str]]:
    """Return the thresholds of the table with what they are chosen for, by threshold."""
    current = bundle.manifest.calibration.threshold
    found = [(choose_threshold(scores, rate).value, f"{100 * rate:g} % false alarms") for rate in RATES]
    if current.value not in dict(found):
        found.append((current.value, _asked(current, None)))
    if labelled is not None:
        anomalous = int(labelled.anomalous.sum())
        found += [
            (threshold_with_misses(labelled, misses), f"{misses} misses in the run")
            for misses in (sorted({0, anomalous // 20, anomalous // 10}) if anomalous else ())
        ]
    return sorted(found)


def _asked(threshold: Threshold, misses: int | None) -> str:
    if threshold.method == "set_by_hand":
        return "set by hand"
    if threshold.method == "from_run":
        return "misses in a run" if misses is None else f"{misses} misses in the run"
    return f"{100 * threshold.false_positive_rate:g} % false alarms"


def _point(
    value: float, asked: str, current: float, scores: FloatArray, labelled: LabelledImages | None
) -> OperatingPoint:
    expected = rate_above(scores, value)

    def above(members: Iterable[bool]) -> int:
        return 0 if labelled is None else int((labelled.scores[np.asarray(members)] > value).sum())

    return OperatingPoint(
        threshold=value,
        chosen_for=asked,
        is_current=value == current,
        expected_rate=expected.expected,
        rate_interval=(expected.low, expected.high),
        false_alarms=None if labelled is None else above(labelled.normal),
        found=None if labelled is None else above(labelled.anomalous),
    )
