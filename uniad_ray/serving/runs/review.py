"""Check the marks of a reviewer and store them next to the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from uniad_ray.errors import StoreError
from uniad_ray.runs.reviews import Mark, now, write_marks
from uniad_ray.runs.scored_images import ScoredImages
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.runs.browser import RunBrowser
from uniad_ray.serving.runs.schemas import NewMark


def store_marks(browser: RunBrowser, run: str, new: Sequence[NewMark], reviewer: str) -> list[Mark]:
    """Store all marks of a request as one file, or none.

    Args:
        browser: The runs.
        run: Name of the run.
        new: At least one mark.
        reviewer: Name of the reviewer's key.

    Raises:
        ProblemError: `not-found`: the run or category does not exist. `invalid-request`: an image does not exist, has
            no score, occurs twice, or its decision contradicts the mark. `store-unavailable`: the marks cannot be
            written.
    """
    opened = browser.open(run)
    images = {category: browser.category(run, category).images for category in {mark.category for mark in new}}
    positions = {
        category: own.positions({mark.row_key for mark in new if mark.category == category})
        for category, own in images.items()
    }
    errors = list(_errors(new, images, positions))
    if errors:
        raise ProblemError("invalid-request", f"no marks were stored: {errors[0]['what']}", errors=errors[:20])
    marked_at = now()
    marks = []
    for mark in new:
        own = images[mark.category]
        marks.append(
            Mark(
                row_key=mark.row_key,
                category=mark.category,
                mark=mark.mark,
                score=float(own.scores[positions[mark.category][mark.row_key]]),
                threshold=own.threshold if mark.threshold is None else mark.threshold,
                reviewer=reviewer,
                marked_at=marked_at,
                note=mark.note or None,
            )
        )
    try:
        write_marks(opened.reader.location, marks)
    except StoreError as error:
        raise ProblemError(
            "store-unavailable", f"cannot write marks next to run {run!r}; give the endpoint write access"
        ) from error
    return marks


def _errors(
    new: Sequence[NewMark], images: Mapping[str, ScoredImages], positions: Mapping[str, Mapping[str, int]]
) -> Iterator[dict[str, Any]]:
    named = Counter((mark.category, mark.row_key) for mark in new)
    for index, mark in enumerate(new):
        own, position = images[mark.category], positions[mark.category].get(mark.row_key)
        if named[mark.category, mark.row_key] > 1:
            yield _error(index, "row_key", "the image occurs twice")
        elif position is None:
            yield _error(index, "row_key", f"no image {mark.row_key[:64]!r} in category {mark.category!r} of the run")
        elif not own.scored[position]:
            yield _error(index, "row_key", "the image has no score and no decision to mark")
        elif mark.mark in ("false_alarm", "miss"):
            threshold = own.threshold if mark.threshold is None else mark.threshold
            score = float(own.scores[position])
            if (score > threshold) != (mark.mark == "false_alarm"):
                called = "anomalous" if score > threshold else "normal"
                what = "false alarm" if mark.mark == "false_alarm" else "miss"
                yield _error(
                    index, "mark", f"the decision at threshold {threshold:g} is {called}, which cannot be a {what}"
                )


def _error(index: int, field: str, what: str) -> dict[str, Any]:
    return {"where": f"marks.{index}.{field}", "what": what}
