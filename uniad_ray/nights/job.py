"""Runs a night step by step. Killed anywhere, the next call goes on after the last finished step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError
from uniad_ray.nights import steps
from uniad_ray.nights.captions import caption
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.delivery import OUTBOX, check_secrets, deliver, due_channels, preview, retry_earlier
from uniad_ray.nights.drift import look_for_drift
from uniad_ray.nights.folder import BEGIN, END, PAGE, SUMMARY, Night, Nights
from uniad_ray.nights.history import write_page
from uniad_ray.nights.model import (
    Begun,
    Captioned,
    ChannelResult,
    Drifted,
    Ended,
    Evaluated,
    Expired,
    Ingested,
    NightReport,
    NightSummary,
    Outbox,
    Scored,
)
from uniad_ray.nights.retention import REPORT_DELETED, RUN_DELETED, delete_expired, expired

_logger = logging.getLogger(__name__)


def nightly(config: NightlyConfig, *, night: str | None = None, dry_run: bool = False) -> NightReport:
    """Finishes the nights that were interrupted, then runs the next one.

    Args:
        config: The configuration.
        night: Name of the next night; default its date. A finished night of that name is not repeated.
        dry_run: Whether to stop before anything is sent or deleted. The next call without it does, and ends the night.

    Raises:
        ConfigError: A secret is missing, or the name is no file name.
        UserError: A step failed; the next call goes on with it.
    """
    if not dry_run:
        check_secrets(config)
    if night is not None and (not night.replace("-", "").replace("_", "").isalnum() or not night.isascii()):
        raise ConfigError(f"night {night!r}: use letters, digits, - and _ only, such as 2026-11-30")
    work = Location.parse(config.work)
    deliveries: list[ChannelResult] = []
    deleted: list[Expired] = []
    if not dry_run:
        deliveries += retry_earlier(config, Nights(work))
    finished: list[NightSummary] = []
    for unfinished in Nights(work).unfinished:
        _logger.info("night %s: goes on where it was interrupted", unfinished.name)
        finished.append(_run(config, unfinished, dry_run, deliveries, deleted))
    new, skipped = _next_night(config, Nights(work), night)
    if new is not None:
        finished.append(_run(config, new, dry_run, deliveries, deleted))
    if dry_run:
        deleted += expired(config, Nights(work), datetime.now(UTC))
    write_page(work, Nights(work), config.history_nights)
    return NightReport(
        work=work.uri,
        nights=tuple(finished),
        skipped=skipped,
        deliveries=tuple(deliveries),
        overview=(work / PAGE).uri,
        dry_run=dry_run,
        expired=tuple(deleted),
    )


def _next_night(config: NightlyConfig, nights: Nights, name: str | None) -> tuple[Night | None, str | None]:
    """The night to start, or why there is none."""
    names = {night.name for night in nights.all}
    if name is not None:
        return (None, f"night {name} is already there") if name in names else (Night(nights.work, name), None)
    now = datetime.now(UTC)
    if nights.last_start is not None:
        due = datetime.fromisoformat(nights.last_start) + timedelta(hours=config.min_hours)
        if now < due:
            return None, f"the last night began at {nights.last_start}; the next may begin at {due.isoformat()}"
    date = now.astimezone(config.zone).date().isoformat()
    free = (f"{date}-{number}" if number > 1 else date for number in range(1, len(names) + 2))
    return Night(nights.work, next(name for name in free if name not in names)), None


def _run(
    config: NightlyConfig, night: Night, dry_run: bool, deliveries: list[ChannelResult], deleted: list[Expired]
) -> NightSummary:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = night.once(BEGIN, Begun, lambda: steps.begin(config, night, started_at))
    ingested = night.once("ingest", Ingested, lambda: steps.ingest(config, night, begun))
    captioned = None
    if (options := config.captions) is not None:
        captioned = night.once("caption", Captioned, lambda: caption(config, options, ingested))
    scored = night.once("score", Scored, lambda: steps.score(config, night, ingested))
    steps.advance(night, ingested)
    return _judge(config, night, begun, ingested, captioned, scored, dry_run, deliveries, deleted)


def _judge(
    config: NightlyConfig,
    night: Night,
    begun: Begun,
    ingested: Ingested,
    captioned: Captioned | None,
    scored: Scored,
    dry_run: bool,
    deliveries: list[ChannelResult],
    deleted: list[Expired],
) -> NightSummary:
    """The steps after the scores: drift, evaluation and report, history, messages, retention."""
    nights = Nights(night.work)
    drifted = night.once("drift", Drifted, lambda: look_for_drift(config, nights, night, ingested, scored))
    night.once("evaluation", Evaluated, lambda: steps.evaluate(config, night, scored))
    for earlier in _marked_since(nights, night, config.history_nights):
        _logger.info("night %s: has new marks of reviewers, evaluating it again", earlier.name)
        earlier.write("evaluation", steps.evaluate(config, earlier, earlier.read("score", Scored) or Scored()))
    summary = night.once(
        SUMMARY, NightSummary, lambda: steps.summarise(config, begun, ingested, captioned, scored, drifted)
    )
    outbox = night.once(OUTBOX, Outbox, lambda: due_channels(config, summary))
    if dry_run:
        deliveries += preview(config, night, summary, outbox)
        return summary
    # The page is there before anybody is sent to it.
    write_page(night.work, nights, config.history_nights)
    deliveries += deliver(config, night, summary, outbox)
    deleted += delete_expired(config, nights, datetime.fromisoformat(begun.started_at))
    night.write(END, Ended(ended_at=datetime.now(UTC).isoformat(timespec="seconds")))
    return summary


def _marked_since(nights: Nights, tonight: Night, most: int) -> Iterator[Night]:
    """Earlier nights whose images reviewers have marked since they were evaluated, and whose runs are kept."""
    for night in nights.before(tonight, most):
        if nights.has(night, RUN_DELETED) or nights.has(night, REPORT_DELETED):
            # A deletion of the run may have been interrupted, so that marks seem to be missing.
            continue
        evaluated = night.read("evaluation", Evaluated)
        has_run = evaluated is not None and evaluated.report is not None and (night.run / "manifest.json").exists()
        if evaluated is not None and has_run and steps.marks_digest(night) != evaluated.marks:
            yield night
