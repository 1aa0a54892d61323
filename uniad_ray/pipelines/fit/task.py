"""The fit of one category as a Ray task: fits, writes, verifies and publishes its bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniad_ray.pipelines.fit.opening import CountedImages, FitTask, open_category
from uniad_ray.pipelines.fit.report import FittedBundle

if TYPE_CHECKING:
    from uniad_ray.pipelines.cluster.sizing import WorkerPlan
    from uniad_ray.scoring.fitting.judged import Judged

HIGHEST_IMAGES = 5
"""Number of normal images in the report that score highest."""


def fit_one(
    category: str, task: FitTask, judged: Judged | None, plan: WorkerPlan, workers: int, counter: Any
) -> dict[str, Any] | Judged:
    """Fits, writes, verifies and publishes the bundle of a category.

    Args:
        category: Category.
        task: Settings that all tasks share.
        judged: Scores by the experts that have judged its images before, or None.
        plan: Threads and CPUs of the task.
        workers: Number of processes, on any node, that may extract its images.
        counter: Handle of the actor that counts images.

    Returns:
        The fields of the `FittedBundle`; or the scores so far if students are needed that are not trained.
    """
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.pipelines.fit.extraction import extraction_in_actors
    from uniad_ray.pipelines.fit.rounds import rounds_in_tasks
    from uniad_ray.scoring.bundles.store import BundleStore

    limit_threads(plan.threads)
    device = choose_device(task.device)
    progress = CountedImages(counter, category, task.totals[category])
    elsewhere = rounds_in_tasks(category, task, plan, progress) if device == "cpu" and plan.threads > 1 else None
    extract = extraction_in_actors(category, task, plan, workers) if device == "cpu" and workers > 1 else None
    with open_category(category, task, device, progress, elsewhere=elsewhere, extract_elsewhere=extract) as opened:
        fit, config, source = opened.fit, opened.config, opened.source
        if judged is None:
            judged = fit.judge_first()
        if fit.wants_students(judged):
            if task.students is None:
                return judged
            if task.is_trial and fit.needs_trial:
                if fit.students_pay(judged):
                    return judged
            else:
                judged = fit.judge_others(judged)
        fitted = fit.finish(judged)
    progress.finish()
    progress.say("writing and checking the bundle")
    images = sum(row.copy_of is None for row in opened.images.rows)
    lineage = {
        "archive": {"uri": source.uri, "digest": opened.manifest.digest},
        "normal_images": images,
        "known_defects": len(opened.known),
        "altered_copies": len(opened.images.rows) - images,
        "twins": fitted.twins,
        "skipped": dict(sorted(opened.images.skipped.items())),
        "excluded": dict(sorted(task.excluded[category].items())),
        "extractors": dict(fitted.extractors),
    }
    unusual = opened.images.by_source_uri(fitted.unusual)
    store = BundleStore(task.bundles)
    written = store.write(category, config, fitted.calibration, lineage, fitted.files)
    bundle = store.load(category, written.version)
    bundle.check_reference(bundle.scorer(device=device))
    selection, threshold = written.calibration.selection, written.calibration.threshold
    highest = bundle.held_out_scores.highest(HIGHEST_IMAGES)
    uris = opened.images.by_source_uri({key: key for key in highest})
    is_published = task.publish and (task.accept_unusual or not unusual)
    own_threshold = None
    if is_published:
        written, before = store.publish_fit(written)
        own_threshold = None if before is None else before.calibration.threshold.value
        threshold = written.calibration.threshold
    return FittedBundle(
        category=category,
        version=written.version,
        digest=written.digest,
        method=written.calibration.method,
        fit_images=written.calibration.fit_images,
        held_out_images=written.calibration.held_out_images,
        threshold=threshold.value,
        false_positive_rate=threshold.false_positive_rate,
        threshold_method=threshold.method,
        rate_interval=threshold.rate_interval,
        skipped=opened.images.skipped | opened.known.skipped,
        unusual=unusual,
        published=is_published,
        recomputed=tuple(sorted(opened.recomputed)),
        known_defects=len(opened.known),
        large_images=()
        if (large := task.config.large_images) is None or config.large_images is large
        else large.experts,
        used_known_defects=bool(selection is not None and selection.known_defects),
        excluded=lineage["excluded"],
        twins=fitted.twins,
        own_threshold=own_threshold,
        value_range=config.value_range,
        highest={uri: highest[key] for uri, key in sorted(uris.items(), key=lambda item: -highest[item[1]])},
    ).model_dump()
