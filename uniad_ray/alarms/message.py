"""What is sent of a night: one message with an id that receivers can deduplicate by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field

from uniad_ray.alarms.rules import Alarm
from uniad_ray.config.base import StrictModel

TYPE: Final = "uniad_ray.night"


class Message(StrictModel):
    """One message, the same for all channels.

    Attributes:
        id: The same night sent twice has the same id, and no other night has it.
        subject: One line.
        text: Plain text.
        document: JSON for programs.
    """

    id: str
    subject: str
    text: str
    document: dict[str, Any] = Field(default_factory=dict)


def night_message(
    identity: str,
    *,
    night: str,
    alarms: Sequence[Alarm],
    facts: dict[str, Any],
    report: str | None,
    overview: str,
) -> Message:
    """Writes the message of a night.

    Args:
        identity: Id of the message.
        night: Name of the night.
        alarms: Its alarms; none for a quiet night.
        facts: Numbers of the night, for text and document.
        report: URI of the report of its run; None without images.
        overview: URI of the page of the last nights.
    """
    if alarms:
        more = f" and {len(alarms) - 1} more" if len(alarms) > 1 else ""
        subject = f"Night {night}: {alarms[0].text}{more}"
    else:
        subject = f"Night {night}: no alarm"
    lines = [f"Night {night}", ""]
    lines += [f"ALARM {alarm.kind}: {alarm.text}" for alarm in alarms] or ["No alarm."]
    lines += ["", *(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())]
    lines += [f"report: {report}"] if report else []
    lines += [f"last nights: {overview}", "", f"message {identity}"]
    document = {
        "id": identity,
        "type": TYPE,
        "version": 1,
        "night": night,
        **facts,
        "alarms": [alarm.model_dump(mode="json") for alarm in alarms],
        "report": report,
        "overview": overview,
    }
    subject = " ".join(subject.split())[:200]
    return Message(id=identity, subject=subject, text="\n".join(lines) + "\n", document=document)
