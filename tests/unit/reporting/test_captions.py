"""Captions of a sidecar beside the images of a report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from support.reports import HOSTILE, labelled_table, make_report

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import SidecarError
from uniad_ray.perception.captions.base import Answer
from uniad_ray.perception.captions.structure import answer_schema
from uniad_ray.pipelines.caption.rows import answer_row, caption_table
from uniad_ray.reporting.captions import with_captions
from uniad_ray.reporting.drawing.pictures import missing_picture
from uniad_ray.reporting.html import render_html
from uniad_ray.reporting.model import GalleryImage, Report
from uniad_ray.sidecars.captions import CaptionManifest, adopt_caption_plan, caption_path, caption_plan

CHUNK = "00000000-00000-00000"


def write_captions(
    root: Path, answers: dict[str, Answer], classes: tuple[str, ...] = (), archive: str = "archive"
) -> Location:
    sidecar = Location.parse(str(root))
    schema = answer_schema(classes) if classes else None
    plan = caption_plan("server", {"model": "fake"}, "What is it?", classes, schema)
    adopt_caption_plan(sidecar, plan)
    rows = [answer_row(key, answer, 1, plan) for key, answer in answers.items()]
    data = encode_table(dataset_schema("caption_sidecar"), caption_table(rows))
    (sidecar / caption_path(CHUNK)).write_bytes(data)
    manifest = CaptionManifest(
        plan=plan,
        archive=archive,
        archive_digest="0" * 64,
        images=len(rows),
        errors={},
        prompt_tokens=0,
        tokens=0,
        seconds=0.0,
        files={CHUNK: hashlib.sha256(data).hexdigest()},
    )
    (sidecar / "manifest.json").write_json(manifest.model_dump(mode="json"))
    return sidecar


def shown(report: Report) -> dict[str, GalleryImage]:
    sections = [section for detail in report.details for section in detail.gallery]
    return {image.row_key: image for section in sections for image in section.images}


def test_captions_stand_beside_their_images(tmp_path: Path) -> None:
    report = make_report({"part": labelled_table()})
    first, second, third, *others = shown(report)
    answers = {first: Answer(f"two nuts {HOSTILE}"), second: Answer("", "empty", "no answer"), "other": Answer("x")}
    captioned = with_captions(report, write_captions(tmp_path, answers))
    found = {key: image.caption for key, image in shown(captioned).items()}
    assert found == {first: f"two nuts {HOSTILE}", **dict.fromkeys([second, third, *others])}
    pictures = {key: missing_picture("gone") for key in found}
    page = render_html(captioned, pictures).decode()
    assert "Caption: <q>two nuts " in page
    assert HOSTILE not in page
    assert "Caption:" not in render_html(report, pictures).decode()


def test_structured_captions_are_put_into_words(tmp_path: Path) -> None:
    report = make_report({"part": labelled_table()})
    first, second, *_ = shown(report)
    bolts = {"class": "bolt", "count": 2, "positions": ["top left", "top right"]}
    nut = {"class": "nut", "count": 1, "positions": ["middle centre"]}
    answers = {first: Answer(json.dumps({"objects": [bolts, nut]})), second: Answer('{"objects": []}')}
    captioned = shown(with_captions(report, write_captions(tmp_path, answers, ("bolt", "nut"))))
    assert captioned[first].caption == "2 bolt: top left, top right; 1 nut: middle centre"
    assert captioned[second].caption == "no objects"


def test_unfinished_captions_are_refused(tmp_path: Path) -> None:
    sidecar = write_captions(tmp_path, {"a": Answer("x")})
    (sidecar / "manifest.json").delete()
    with pytest.raises(SidecarError, match="not finished; repeat"):
        with_captions(make_report({"part": labelled_table()}), sidecar)


def test_captions_of_another_archive_are_refused(tmp_path: Path) -> None:
    sidecar = write_captions(tmp_path, {"a": Answer("x")})
    with pytest.raises(SidecarError, match="has captions of archive, and none of these images"):
        with_captions(make_report({"part": labelled_table()}), sidecar)


def test_captions_of_other_images_of_the_same_archive_are_none(tmp_path: Path) -> None:
    report = make_report({"part": labelled_table()})
    sidecar = write_captions(tmp_path, {"a": Answer("x")}, archive=report.run.archive)
    assert {image.caption for image in shown(with_captions(report, sidecar)).values()} == {None}
