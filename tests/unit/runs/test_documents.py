"""The schemas of JSON documents match the models."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from uniad_ray.archive.manifest import ArchiveManifest
from uniad_ray.archive.schemas import schema_directory
from uniad_ray.perception.captions.structure import CaptionAnswer
from uniad_ray.reporting.model import Report
from uniad_ray.runs.plan import RunManifest, RunPlan
from uniad_ray.runs.timings import Timing
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.sidecars.caption_ranges import CaptionRanges
from uniad_ray.sidecars.captions import CaptionManifest, CaptionPlan
from uniad_ray.sidecars.plan import SidecarManifest, SidecarPlan

MODELS = {
    "timing": Timing,
    "archive_manifest": ArchiveManifest,
    "bundle_manifest": BundleManifest,
    "report": Report,
    "run_plan": RunPlan,
    "run_manifest": RunManifest,
    "caption_answer": CaptionAnswer,
    "caption_plan": CaptionPlan,
    "caption_manifest": CaptionManifest,
    "caption_ranges": CaptionRanges,
    "sidecar_plan": SidecarPlan,
    "sidecar_manifest": SidecarManifest,
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_schema_and_model_agree(name: str) -> None:
    document = json.loads((schema_directory() / f"{name}.json").read_text())
    model: type[BaseModel] = MODELS[name]
    properties = model.model_json_schema()["properties"]
    found = {key: entry.get("type", "object") for key, entry in properties.items()}
    assert {field["name"]: field["type"] for field in document["fields"]} == found


def test_every_document_has_a_model() -> None:
    documents = [
        json.loads(entry.read_text()) for entry in schema_directory().iterdir() if entry.name.endswith(".json")
    ]
    assert {document["name"] for document in documents if document["kind"] == "document"} == set(MODELS)
