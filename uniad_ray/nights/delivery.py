"""Messages of the nights and their delivery: at least once, with an id that receivers deduplicate by."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from uniad_ray.alarms import mail, webhook
from uniad_ray.alarms.mail import Mail
from uniad_ray.alarms.message import Message, night_message
from uniad_ray.alarms.webhook import Webhook
from uniad_ray.errors import DeliveryError
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.folder import PAGE, SUMMARY, Night, Nights
from uniad_ray.nights.model import ChannelResult, Delivery, NightSummary, Outbox, Sent

OUTBOX: Final = "outbox"
RETRIED_NIGHTS: Final = 7
"""Last nights whose messages are tried again if a receiver was away."""


def check_secrets(config: NightlyConfig) -> None:
    """Reads every secret, so that a missing one is an error before the work, not after it.

    Raises:
        ConfigError: A secret is missing.
    """
    for name, hook in config.notify.webhooks.items():
        hook.address(_key("webhooks", name))
        hook.key(_key("webhooks", name))
    for name, receiver in config.notify.mail.items():
        if receiver.password is not None:
            receiver.password.read(f"{_key('mail', name)}.password")


def due_channels(config: NightlyConfig, summary: NightSummary) -> Outbox:
    """The channels that want to hear of a night, and the id of its message."""
    due = [name for name, receiver in _channels(config).items() if summary.alarms or receiver.when == "always"]
    return Outbox(channels=tuple(due), message_id=str(uuid.uuid4()))


def message_of(night: Night, summary: NightSummary, outbox: Outbox) -> Message:
    """The message of a night; the same night has the same message."""
    facts: dict[str, Any] = {
        "started_at": summary.started_at,
        "images": summary.images,
        "anomalous": summary.anomalous,
        "in_review": summary.in_review,
        "errors": summary.errors,
        "rejected_files": summary.rejected_files,
    }
    if summary.captions is not None:
        facts["captioned"] = f"{summary.captions.captioned} of {summary.captions.images}"
    report = (night.run / "report/report.html").uri if summary.run_id else None
    return night_message(
        outbox.message_id,
        night=night.name,
        alarms=summary.alarms,
        facts=facts,
        report=report,
        overview=(night.work / PAGE).uri,
    )


def deliver(config: NightlyConfig, night: Night, summary: NightSummary, outbox: Outbox) -> Iterator[ChannelResult]:
    """Sends the message of a night to each channel that has not taken it yet.

    Killed between a response and its record, the next call sends the same id again, and the receiver drops it.
    """
    message = message_of(night, summary, outbox)
    for name, receiver in _channels(config).items():
        record = f"sent/{name}"
        if name not in outbox.channels or night.read(record, Sent) is not None:
            continue
        try:
            _send(receiver, message, name)
        except DeliveryError as error:
            yield ChannelResult(night=night.name, channel=name, result="failed", detail=str(error))
            continue
        night.write(record, Sent(channel=name, message_id=message.id, sent_at=datetime.now(UTC).isoformat()))
        yield ChannelResult(night=night.name, channel=name, result="sent", detail=message.id)


def preview(config: NightlyConfig, night: Night, summary: NightSummary, outbox: Outbox) -> Iterator[ChannelResult]:
    """What `deliver` would send; reads no secret."""
    message = message_of(night, summary, outbox)
    for name, receiver in _channels(config).items():
        is_due = name in outbox.channels
        is_sent = is_due and night.read(f"sent/{name}", Sent) is not None
        detail = "already sent" if is_sent else _shown(receiver, message) if is_due else "no alarm"
        result: Delivery = "would be sent" if is_due and not is_sent else "not due"
        yield ChannelResult(night=night.name, channel=name, result=result, detail=detail)


def retry_earlier(config: NightlyConfig, nights: Nights) -> Iterator[ChannelResult]:
    """Sends the messages of the last finished nights that a receiver has not taken."""
    for night in nights.all[-RETRIED_NIGHTS:]:
        if night in nights.unfinished:
            continue
        outbox, summary = night.read(OUTBOX, Outbox), night.read(SUMMARY, NightSummary)
        if outbox is not None and summary is not None:
            yield from deliver(config, night, summary, outbox)


def _channels(config: NightlyConfig) -> dict[str, Webhook | Mail]:
    hooks: dict[str, Webhook | Mail] = {f"webhook-{name}": hook for name, hook in config.notify.webhooks.items()}
    return hooks | {f"mail-{name}": receiver for name, receiver in config.notify.mail.items()}


def _send(receiver: Webhook | Mail, message: Message, channel: str) -> None:
    kind, _, name = channel.partition("-")
    if isinstance(receiver, Webhook):
        webhook.send(receiver, message, where=_key(f"{kind}s", name))
    else:
        mail.send(receiver, message, where=_key(kind, name))


def _shown(receiver: Webhook | Mail, message: Message) -> str:
    if isinstance(receiver, Webhook):
        address = receiver.url or "the address of url_from"
        document = json.dumps(message.document, indent=1, sort_keys=True, ensure_ascii=False)
        return f"POST {address}\nwebhook-id: {message.id}\nwebhook-signature: v1,...\n\n{document}"
    return mail.compose(receiver, message).as_string()


def _key(kind: str, name: str) -> str:
    return f"notify.{kind}.{name}"
