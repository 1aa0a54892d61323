"""Captions of a night from a fake chat server, with the tasks of Ray in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.captioned import caption_options
from support.chat_server import Asked, ChatServer, chat_server
from support.kills import KilledError
from support.nights import Factory, write_factory

from uniad_ray.archive.stores.location import Location
from uniad_ray.cli.verbs.results.nightly import as_text
from uniad_ray.errors import CaptionError, SidecarError
from uniad_ray.nights.model import NightReport
from uniad_ray.perception.captions.captioners import CAPTION_PROMPT
from uniad_ray.perception.captions.table import _read_table
from uniad_ray.sidecars.captions import read_captions

pytestmark = pytest.mark.usefixtures("jobs_here")

AWAY = "http://127.0.0.1:9/v1"
"""Nothing listens at the port."""


def away(_: Asked) -> tuple[int, bytes]:
    """What a gateway says whose server is away."""
    return 503, b""


def said(asked: Asked) -> str:
    """What the fake model says; nothing about an image with a spot."""
    return "" if asked.image.max() > 200 else f"One part, brightness {int(asked.image.mean())}."


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(said) as found:
        yield found


@pytest.fixture
def factory(prepared: Path, tmp_path: Path, server: ChatServer) -> Factory:
    found = Factory.copy(prepared, tmp_path)
    configure(found, server.url)
    return found


def configure(factory: Factory, url: str, **changes: Any) -> None:
    """Sets the section `captions` of a factory."""
    factory.options["captions"] = {
        "sidecar": str(factory.root / "captions"),
        "engine": "server",
        "url": url,
        "model": "fake",
        "options": {"retries": 0},
        **changes,
    }


def texts(factory: Factory, night: str) -> list[str | None]:
    """Captions of the images of a night that a finished sidecar has."""
    keys = [row["row_key"] for row in factory.rows(night)]
    found = read_captions(Location.parse(factory.root / "captions"), keys)
    return [found.get(key) for key in keys]


def alarms(report: NightReport) -> list[str]:
    return [alarm.kind for night in report.nights for alarm in night.alarms]


@pytest.mark.slow
def test_text_experts_find_the_texts_of_the_new_images(tmp_path: Path, server: ChatServer) -> None:
    sidecar = tmp_path / "captions"
    normal = {"row_key": [f"{index:032d}" for index in range(12)], "text": ["One part, brightness 120."] * 12}
    (sidecar / "captions").mkdir(parents=True)
    pq.write_table(pa.table({**normal, "prompt": [CAPTION_PROMPT] * 12}), sidecar / "captions/of-the-fit.parquet")
    captioner = {"kind": "table", "source": str(sidecar)}
    write_factory(tmp_path / "prepared", *caption_options(captioner), images=12)
    factory = Factory.copy(tmp_path / "prepared", tmp_path)
    configure(factory, server.url)
    factory.arrive(5, spots=1)
    _read_table.cache_clear()
    report = factory.night("n1", dry_run=True)
    rows = factory.rows("n1")
    experts = sorted([entry["expert"] for entry in row["experts"]] for row in rows)
    assert experts == [["patch"], *[["patch", "text"]] * 4]
    assert [one["expert"] for row in rows for one in row["left_out"]] == ["text"]
    assert "captions: 4 of 5 new images have one" in as_text(report)
    assert "note: 1 of 5 new images have no caption (empty: 1)" in as_text(report)
    assert "captions" not in alarms(report)
    page = (factory.work / "runs/n1/report/report.html").read_text("utf-8")
    assert "One part, brightness" in page
    # A server that is away costs the texts of the night, not the night.
    server.answer = away
    factory.arrive(2)
    _read_table.cache_clear()
    later = factory.night("n2")
    assert [(night.night, night.images) for night in later.nights] == [("n1", 5), ("n2", 2)]
    assert [[entry["expert"] for entry in row["experts"]] for row in factory.rows("n2")] == [["patch"]] * 2


def test_night_without_the_model_goes_on_with_an_alarm_and_the_next_one_catches_up(
    factory: Factory, server: ChatServer
) -> None:
    server.answer = away
    factory.arrive(3, spots=1)
    without = factory.night("n1")
    (night,) = without.nights
    assert night.images == 3
    assert [alarm.kind for alarm in night.alarms if alarm.kind != "reject_rate"] == ["captions"]
    assert night.captions is not None
    assert (night.captions.captioned, night.captions.errors) == (0, {"not asked": 3})
    (text,) = [alarm.text for alarm in night.alarms if alarm.kind == "captions"]
    assert text.startswith("the night went on without the caption model; 0 of 3 new images have a caption: ")
    assert "is busy or failing" in text
    assert text in as_text(without)
    page = (factory.work / "nights.html").read_text("utf-8")
    assert "0 of 3 (0.0 %)" in page
    assert "the night went on without the caption model" in page
    server.answer = said
    factory.arrive(2)
    back = factory.night("n2")
    assert "captions" not in alarms(back)
    assert [text is not None for text in texts(factory, "n2")] == [True, True]
    assert sum(text is not None for text in texts(factory, "n1")) == 2
    assert "One part, brightness" in (factory.work / "runs/n2/report/report.html").read_text("utf-8")
    # Only the image without an answer is asked about again, twice as in every call.
    before = len(server.asked)
    factory.night("n3")
    assert len(server.asked) == before + 2
    server.answer = away
    configure(factory, server.url, retry_errors=False)
    assert "captions" not in alarms(factory.night("n4"))


def test_alarm_of_captions_can_be_switched_off(factory: Factory) -> None:
    configure(factory, AWAY)
    factory.options["alarms"] = {"captions": False}
    factory.arrive(1)
    night = factory.night("n1").nights[0]
    assert night.alarms == ()
    assert night.captions is not None
    assert "cannot reach" in (night.captions.failure or "")


def test_required_captions_end_the_night_and_the_next_call_resumes_it(factory: Factory, server: ChatServer) -> None:
    configure(factory, server.url, required=True)
    server.answer = away
    factory.arrive(3)
    with pytest.raises(
        CaptionError, match=r"is busy or failing .*captions\.required is true, so the night is not scored"
    ):
        factory.night("n1")
    assert not (factory.work / "runs/n1").exists()
    server.answer = said
    assert [(night.night, night.images) for night in factory.night("n2").nights] == [("n1", 3), ("n2", 0)]
    assert all(texts(factory, "n1"))


@pytest.mark.parametrize("written", ["/captions/plan.json", ".parquet", "/captions/manifest.json", "/n1/caption.json"])
def test_killed_step_is_resumed_and_asks_once_about_each_image(
    written: str, factory: Factory, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.arrive(4)
    write_bytes = Location.write_bytes

    def write_then_die(self: Location, data: bytes, *, if_absent: bool = False) -> None:
        write_bytes(self, data, if_absent=if_absent)
        if self.uri.endswith(written) and "caption" in self.uri:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_bytes", write_then_die)
        with pytest.raises(KilledError):
            factory.night("n1")
    report = factory.night("n1")
    assert [(night.night, night.images) for night in report.nights] == [("n1", 4)]
    assert factory.record("n1", "caption") == {"images": 4, "errors": {}, "failure": None}
    assert all(texts(factory, "n1"))
    assert len(server.asked) == 4


def test_sidecar_of_another_model_is_a_mistake(factory: Factory) -> None:
    factory.arrive(1)
    factory.night("n1")
    configure(factory, factory.options["captions"]["url"], model="another")
    factory.arrive(1)
    with pytest.raises(SidecarError, match="has captions of another model"):
        factory.night("n2")


def test_only_configured_categories_are_captioned(factory: Factory, server: ChatServer) -> None:
    configure(factory, server.url, categories=["not there yet"])
    factory.arrive(1)
    night = factory.night("n1").nights[0]
    assert night.captions is not None
    assert night.captions.images == 0
    assert server.asked == []


def test_captions_of_deleted_images_leave_the_sidecar(factory: Factory) -> None:
    factory.options["retention"] = {"images_days": 1}
    factory.arrive(2)
    factory.night("n1")
    begin = factory.work / "nights/n1/begin.json"
    begin.write_text(json.dumps({**json.loads(begin.read_text()), "started_at": "2026-01-01T00:00:00+00:00"}), "utf-8")
    assert len(texts(factory, "n1")) == 2
    assert [entry.kind for entry in factory.night("n2").expired] == ["images"]
    assert texts(factory, "n1") == [None, None]
