"""Output and exit codes of `uniad-ray nightly`, from hand-written reports."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from uniad_ray import verbs
from uniad_ray.alarms.rules import Alarm
from uniad_ray.cli import cli
from uniad_ray.nights.model import ChannelResult, NightReport, NightSummary

ALARM = Alarm(kind="no_images", text="no new images")


def night(*alarms: Alarm) -> NightSummary:
    return NightSummary(
        night="n1",
        started_at="2026-01-01T00:00:00+00:00",
        run_id=None,
        images=0,
        errors=0,
        anomalous=0,
        rejected_files=1,
        waiting={},
        categories={},
        medians={},
        findings=(),
        alarms=alarms,
        notes=("dark",),
    )


def report(*nights: NightSummary, **given: Any) -> NightReport:
    fields = {"work": "/w", "skipped": None, "deliveries": (), "overview": "/w/nights.html", "dry_run": False}
    return NightReport(nights=nights, **{**fields, **given})


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (report(night()), 0),
        (report(skipped="the next night may begin later"), 0),
        (report(night(ALARM)), 3),
        (
            report(
                night(ALARM),
                deliveries=(ChannelResult(night="n1", channel="webhook-a", result="failed", detail="away"),),
            ),
            1,
        ),
    ],
)
def test_exit_codes(result: NightReport, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "nightly", lambda **_: result)
    ended = CliRunner().invoke(cli, ["nightly", "--config", "c.yaml"], standalone_mode=False)
    assert ended.return_value == code


def test_text_names_alarms_notes_and_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ChannelResult(night="n1", channel="webhook-a", result="would be sent", detail="POST a\n{}")
    found = report(night(ALARM), deliveries=(shown,), dry_run=True)
    monkeypatch.setattr(verbs, "nightly", lambda **_: found)
    ended = CliRunner().invoke(cli, ["nightly", "--config", "c.yaml"], standalone_mode=False)
    assert ended.output.splitlines() == [
        "night n1: 0 new images, 0 anomalous, 0 errors, 1 rejected files",
        "  alarm no_images: no new images",
        "  note: dark",
        "n1: webhook-a: would be sent: POST a",
        "    {}",
        "dry run: nothing was sent or deleted; the same command without --dry-run does it",
        "/w/nights.html: the last nights",
    ]
