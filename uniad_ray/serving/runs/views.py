"""Build the responses of the operations on runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from uniad_ray.runs.reviews import Mark
from uniad_ray.serving.auth.keys import AccessKey
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.schemas import AnomalyMap, ExpertScore, ImageProblem, map_document
from uniad_ray.serving.runs.browser import OpenRun, RunBrowser
from uniad_ray.serving.runs.category_scores import Decision, ErrorCounts, RowFilter
from uniad_ray.serving.runs.schemas import (
    RunCategory,
    RunImage,
    RunImagePage,
    RunList,
    RunMark,
    RunPart,
    RunPartPage,
    RunSummary,
    ThresholdErrors,
    ThresholdResponse,
)


def list_runs(browser: RunBrowser, key: AccessKey) -> RunList:
    """List the runs with a category that the key is valid for; an unreadable run does not hide the others."""
    runs = []
    for name in browser.names:
        try:
            summary = _summary(browser.open(name), key)
        except ProblemError as problem:
            # Its categories are unknown: show it only to keys that are valid for all categories.
            if key.categories is None:
                runs.append(RunSummary(name=name, problem=problem.detail))
            continue
        if summary.categories:
            runs.append(summary)
    return RunList(runs=runs, may_review="review" in key.rights)


def image_page(browser: RunBrowser, run: str, category: str, asked: RowFilter, offset: int, limit: int) -> RunImagePage:
    """Return a page of the images that match a filter.

    Raises:
        ProblemError: `not-found` or `store-unavailable`.
    """
    opened = browser.category(run, category)
    marks = browser.marks(opened)
    found = opened.scores.select(asked, marks)
    positions = found[offset : offset + limit].tolist()
    rows = browser.rows(opened, positions)
    threshold = opened.images.threshold if asked.threshold is None else asked.threshold
    return RunImagePage(
        run=run,
        run_id=opened.run.reader.manifest.run_id,
        category=category,
        threshold=opened.images.threshold,
        total=len(found),
        offset=offset,
        images=[_image(row, threshold, marks.get(at)) for row, at in zip(rows, positions, strict=True)],
    )


def part_page(
    browser: RunBrowser,
    run: str,
    key: AccessKey,
    *,
    serial: str | None,
    decision: Decision | Literal["review", "undecided"] | None,
    offset: int,
    limit: int,
) -> RunPartPage:
    """Return a page of the parts whose views are all of categories that the key is valid for.

    Raises:
        ProblemError: `not-found` or `store-unavailable`.
    """
    opened = browser.open(run)
    found = [
        part
        for part in browser.parts(opened)
        if (serial is None or part.serial == serial)
        and (decision is None or (part.decision or "undecided") == decision)
        and all(map(key.covers, part.categories))
    ]
    return RunPartPage(
        run=run,
        run_id=opened.reader.manifest.run_id,
        total=len(found),
        offset=offset,
        parts=[RunPart.model_validate(asdict(part)) for part in found[offset : offset + limit]],
    )


def threshold_response(browser: RunBrowser, run: str, category: str, threshold: float | None) -> ThresholdResponse:
    """Preview a threshold.

    Raises:
        ProblemError: `not-found` or `store-unavailable`.
    """
    opened = browser.category(run, category)
    images, scores = opened.images, opened.scores
    asked = images.threshold if threshold is None else threshold
    change = scores.what_if(asked, browser.marks(opened))
    shift = change.anomalous_after - change.anomalous_before
    lowest, highest = scores.range or (None, None)
    return ThresholdResponse(
        category=category,
        stored_threshold=images.threshold,
        threshold=asked,
        lowest_score=lowest,
        highest_score=highest,
        images=int(images.scored.sum()),
        changed=abs(shift),
        to_anomalous=max(shift, 0),
        to_normal=max(-shift, 0),
        anomalous_before=change.anomalous_before,
        anomalous_after=change.anomalous_after,
        labelled_normal=change.normal_labels,
        labelled_anomalous=change.anomalous_labels,
        errors_before=_errors(change.before),
        errors_after=_errors(change.after),
    )


def map_response(browser: RunBrowser, run: str, category: str, row_key: str) -> AnomalyMap:
    """Return the stored map of an image, in the form of a scoring response.

    Raises:
        ProblemError: `not-found` or `store-unavailable`.
    """
    document = map_document(browser.anomaly_map(browser.category(run, category), row_key), "png")
    assert document is not None  # noqa: S101 - None only for the form `none`
    return document


def _summary(run: OpenRun, key: AccessKey) -> RunSummary:
    manifest = run.reader.manifest
    plan = manifest.plan
    categories = [
        RunCategory(
            category=name,
            images=counts.images,
            errors=counts.errors,
            anomalous=counts.anomalous,
            bundle_version=plan.bundles[name].version,
            bundle_digest=plan.bundles[name].digest,
        )
        for name, counts in sorted(manifest.categories.items())
        if key.covers(name)
    ]
    return RunSummary(
        name=run.name,
        run_id=manifest.run_id,
        created_at=run.created_at,
        code_version=plan.code_version,
        maps=plan.options.maps,
        images=sum(category.images for category in categories),
        errors=sum(category.errors for category in categories),
        anomalous=sum(category.anomalous for category in categories),
        categories=categories,
    )


def _image(row: dict[str, Any], threshold: float, mark: Mark | None) -> RunImage:
    score = row["score"]
    return RunImage(
        row_key=row["row_key"],
        source_uri=row["source_uri"],
        category=row["category"],
        split=row["split"],
        label=row["label"],
        defect_kind=row["defect_kind"],
        status=row["status"],
        error=None if row["error_kind"] is None else ImageProblem(kind=row["error_kind"], detail=row["error"] or ""),
        score=score,
        threshold=row["threshold"],
        decision=row["decision"],
        decision_at_threshold=None if score is None else "anomalous" if score > threshold else "normal",
        reasons=row["reasons"],
        experts=[ExpertScore(**entry) for entry in row["experts"]],
        metadata={entry["name"]: entry["value"] for entry in row["metadata"]},
        mark=None if mark is None else _run_mark(mark),
    )


def _run_mark(mark: Mark) -> RunMark:
    """Convert a mark for a response."""
    return RunMark(
        mark=mark.mark,
        score=mark.score,
        threshold=mark.threshold,
        reviewer=mark.reviewer,
        marked_at=mark.marked_at,
        note=mark.note,
    )


def _errors(counts: ErrorCounts | None) -> ThresholdErrors | None:
    return None if counts is None else ThresholdErrors(false_alarms=counts.false_alarms, misses=counts.misses)
