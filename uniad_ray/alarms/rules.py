"""The rules that raise alarms, and the alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.drift.findings import Finding

AlarmKind = Literal["source", "no_images", "no_bundle", "error_share", "reject_rate", "drift", "captions"]


class AlarmRules(StrictModel):
    """Limits that raise an alarm; null disables a rule.

    Attributes:
        source: Whether a source that cannot be read or is empty raises an alarm.
        min_images: Fewer new images than this raise `no_images`; 0 disables the rule.
        error_share: Largest share of new files that could not be ingested or scored.
        reject_rate: Largest share of scored images that are called anomalous, in each category.
        reject_rates: Other limits of `reject_rate`, by category.
        rate_images: Scored images that a category needs for its reject rate to count.
        drift: Whether drift raises an alarm.
        no_bundle: Whether a category without a published bundle raises an alarm.
        captions: Whether a night without captions raises an alarm, because the model could not be reached.
    """

    source: bool = True
    min_images: int = Field(default=1, ge=0)
    error_share: float | None = Field(default=0.05, ge=0, le=1)
    reject_rate: float | None = Field(default=0.2, ge=0, le=1)
    reject_rates: dict[str, float | None] = Field(default_factory=dict)
    rate_images: int = Field(default=20, ge=1)
    drift: bool = True
    no_bundle: bool = True
    captions: bool = True


class Alarm(StrictModel):
    """One reason to look at a night.

    Attributes:
        kind: `source`, `no_images`, `no_bundle`, `error_share`, `reject_rate`, `drift` or `captions`.
        category: The category; None if it concerns the whole night.
        value: The value that broke the limit; None if there is none.
        limit: The limit.
        text: The alarm as a sentence.
    """

    kind: AlarmKind
    category: str | None = None
    value: float | None = None
    limit: float | None = None
    text: str


class Counts(Protocol):
    """Image counts of one category."""

    @property
    def images(self) -> int:
        """Score rows."""

    @property
    def errors(self) -> int:
        """Rows with status error."""

    @property
    def anomalous(self) -> int:
        """Rows with decision anomalous."""


def raise_alarms(
    rules: AlarmRules,
    *,
    categories: Mapping[str, Counts],
    waiting: Mapping[str, int],
    rejected_files: int,
    failed_sources: Mapping[str, str],
    findings: Sequence[Finding],
    captions: str | None = None,
) -> tuple[Alarm, ...]:
    """The alarms of a night.

    Args:
        rules: Limits.
        categories: Counts of the scored categories.
        waiting: New images of categories without a published bundle.
        rejected_files: New files that were rejected at ingest.
        failed_sources: Sources that could not be read, with the reason.
        findings: Findings of drift.
        captions: Why the night has no captions; None if it has, or needs none.
    """
    images = sum(counts.images for counts in categories.values())
    errors = sum(counts.errors for counts in categories.values()) + rejected_files
    return (
        *(Alarm(kind="source", text=reason) for reason in failed_sources.values() if rules.source),
        *([Alarm(kind="captions", text=captions)] if captions is not None and rules.captions else []),
        *_no_images(rules, images + sum(waiting.values())),
        *_no_bundle(rules, waiting),
        *_error_share(rules, errors, images + rejected_files),
        *_reject_rates(rules, categories),
        *(
            Alarm(kind="drift", category=finding.category, value=finding.psi, text=finding.text)
            for finding in findings
            if rules.drift
        ),
    )


def _no_images(rules: AlarmRules, images: int) -> Iterator[Alarm]:
    if images < rules.min_images:
        yield Alarm(
            kind="no_images",
            value=images,
            limit=rules.min_images,
            text=f"{images or 'no'} new images, expected at least {rules.min_images}; check cameras and sources",
        )


def _no_bundle(rules: AlarmRules, waiting: Mapping[str, int]) -> Iterator[Alarm]:
    for category, images in sorted(waiting.items()):
        if rules.no_bundle:
            yield Alarm(
                kind="no_bundle",
                category=category,
                value=images,
                text=f"{category}: {images} images wait for a bundle; fit one, and the next night scores them",
            )


def _error_share(rules: AlarmRules, errors: int, files: int) -> Iterator[Alarm]:
    if rules.error_share is not None and files and errors / files > rules.error_share:
        yield Alarm(
            kind="error_share",
            value=errors / files,
            limit=rules.error_share,
            text=f"{errors} of {files} new files ({errors / files:.1%}) could not be ingested or scored; the limit is "
            f"{rules.error_share:.1%}",
        )


def _reject_rates(rules: AlarmRules, categories: Mapping[str, Counts]) -> Iterator[Alarm]:
    for category, counts in sorted(categories.items()):
        limit = rules.reject_rates.get(category, rules.reject_rate)
        scored = counts.images - counts.errors
        if limit is not None and scored >= rules.rate_images and counts.anomalous / scored > limit:
            yield Alarm(
                kind="reject_rate",
                category=category,
                value=counts.anomalous / scored,
                limit=limit,
                text=f"{category}: {counts.anomalous} of {scored} images ({counts.anomalous / scored:.1%}) are called "
                f"anomalous; the limit is {limit:.1%}",
            )
