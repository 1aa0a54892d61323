"""The records of a night, one for each step, and its summary in the history."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from uniad_ray.alarms.rules import Alarm
from uniad_ray.config.base import StrictModel
from uniad_ray.drift.findings import Finding

FORMAT_VERSION = 1


class Begun(StrictModel):
    """First record of a night.

    Attributes:
        format_version: Version of the layout of a night.
        night: Name of the night.
        started_at: UTC, ISO 8601.
        rejected_before: Files that the archive had rejected before; they do not count again.
    """

    format_version: int = FORMAT_VERSION
    night: str
    started_at: str
    rejected_before: tuple[str, ...]


class Ingested(StrictModel):
    """What is new.

    Attributes:
        shards: Shards to score tonight.
        waiting: New images of categories without a published bundle; a later night scores them.
        rejected_files: New files that were rejected.
        failed_sources: Sources that could not be read, with the reason.
        warnings: Warnings of the ingest.
    """

    shards: tuple[str, ...]
    waiting: dict[str, int]
    rejected_files: int
    failed_sources: dict[str, str]
    warnings: tuple[str, ...]


class Captioned(StrictModel):
    """Captions of the new images.

    Attributes:
        images: New images that are to have a caption.
        errors: Those without one, by kind; `not asked` if the model was not asked.
        failure: Why the night went on without captions; None if the model was reached.
    """

    images: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    failure: str | None = None

    @property
    def captioned(self) -> int:
        """New images with a caption."""
        return self.images - sum(self.errors.values())


class NightCounts(StrictModel):
    """Image counts of one category, and the bundle that scored it."""

    images: int
    errors: int
    anomalous: int
    in_review: int = 0
    bundle_version: str


class Scored(StrictModel):
    """The run of a night.

    Attributes:
        run: URI of the run; None without new images.
        run_id: Digest of its plan; None without new images.
        categories: Counts by category.
        notes: What the options leave without effect.
    """

    run: str | None = None
    run_id: str | None = None
    categories: dict[str, NightCounts] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Drifted(StrictModel):
    """Drift of a night.

    Attributes:
        findings: What changed.
        medians: Median of brightness and score by category and measure, for the history.
        notes: What could not be compared.
    """

    findings: tuple[Finding, ...] = ()
    medians: dict[str, dict[str, float]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Evaluated(StrictModel):
    """Evaluation and report of a night; replaced when reviewers mark its images later.

    Attributes:
        report: URI of the report; None without new images.
        marks: Digest of the reviewers' marks that were used.
        image_auroc: Image AUROC by category, of those with normal and anomalous labels.
    """

    report: str | None = None
    marks: str = ""
    image_auroc: dict[str, float] = Field(default_factory=dict)


class NightSummary(StrictModel):
    """One night of the history.

    Attributes:
        night: Name of the night.
        started_at: UTC, ISO 8601.
        run_id: Digest of the plan of its run; None without new images.
        images: New images that were scored.
        errors: Those that could not be scored.
        anomalous: Those called anomalous.
        in_review: Those for review; see docs/decisions.md.
        rejected_files: New files that were rejected at ingest.
        waiting: New images of categories without a published bundle.
        captions: Captions of the new images; None if the nights have none.
        categories: Counts by category.
        medians: Median of brightness and score by category and measure.
        findings: Findings of drift.
        alarms: The alarms.
        notes: Warnings, and what could not be compared.
    """

    night: str
    started_at: str
    run_id: str | None
    images: int
    errors: int
    anomalous: int
    in_review: int = 0
    rejected_files: int
    waiting: dict[str, int]
    captions: Captioned | None = None
    categories: dict[str, NightCounts]
    medians: dict[str, dict[str, float]]
    findings: tuple[Finding, ...]
    alarms: tuple[Alarm, ...]
    notes: tuple[str, ...]


class Outbox(StrictModel):
    """What a night has to send; written before anything is sent.

    Attributes:
        channels: Channels that the night is due to, such as `webhook-operations`.
        message_id: Id of its message, a random UUID: nights of other plants have other ids, even in folders of the same
            name.
    """

    channels: tuple[str, ...]
    message_id: str


class Sent(StrictModel):
    """A message that a receiver took.

    Attributes:
        channel: The channel.
        message_id: Id of the message.
        sent_at: UTC, ISO 8601.
    """

    channel: str
    message_id: str
    sent_at: str


class Ended(StrictModel):
    """Last record of a night."""

    ended_at: str


class Watermark(StrictModel):
    """Shards of the archive that a night has scored, or that the archive held before the first night."""

    shards: tuple[str, ...]


Delivery = Literal["sent", "failed", "would be sent", "not due"]


class ChannelResult(StrictModel):
    """Outcome of one channel.

    Attributes:
        night: Name of the night.
        channel: The channel.
        result: `sent`, `failed`, `would be sent` or `not due`.
        detail: Why it failed, or what would be sent.
    """

    night: str
    channel: str
    result: Delivery
    detail: str = ""


ExpiredKind = Literal["images", "run", "report", "sample", "reference"]


class Expired(StrictModel):
    """Something older than the configuration keeps it.

    Attributes:
        night: Name of its night; None for the measured images of a fit.
        kind: `images`, `run`, `report`, `sample` (measured images of a night) or `reference` (of a fit).
        place: URI of the folder or file; for images, of the archive.
        images: Number of images; None for other kinds.
        reason: Rule of the configuration.
    """

    night: str | None
    kind: ExpiredKind
    place: str
    images: int | None
    reason: str


class NightReport(StrictModel):
    """Result of a call.

    Attributes:
        work: Folder of the nights.
        nights: The nights that this call finished, oldest first; with `dry_run`, those that it would.
        skipped: Why no night was started; None if one was.
        deliveries: Outcome of each channel.
        overview: Page of the last nights.
        dry_run: Whether nothing was sent or deleted.
        expired: What this call deleted because of its age; with `dry_run`, what it would.
    """

    work: str
    nights: tuple[NightSummary, ...]
    skipped: str | None
    deliveries: tuple[ChannelResult, ...]
    overview: str | None
    dry_run: bool
    expired: tuple[Expired, ...] = ()

    @property
    def has_alarms(self) -> bool:
        """Whether a night of this call has alarms."""
        return any(night.alarms for night in self.nights)

    @property
    def has_failed(self) -> bool:
        """Whether a message could not be delivered."""
        return any(delivery.result == "failed" for delivery in self.deliveries)
