"""Why images are left out of a fit."""

from __future__ import annotations

import pytest
from support.profiles import small_config

from uniad_ray.archive.exclusions import Exclusion
from uniad_ray.archive.manifest import build_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.fit import job


def test_images_of_one_path_keep_a_reason_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def excluded(image_id: str, reason: str, uri: str = "s3://b/0.png", category: str = "lid") -> Exclusion:
        return Exclusion(
            image_id=image_id, category=category, source_uri=uri, is_excluded=True, reason=reason, changed_at="2026"
        )

    changes = [
        excluded("a", "blurred"),
        excluded("b", "a hand"),
        excluded("c", "blurred", uri="s3://b/1.png"),
        excluded("d", "blurred", uri="s3://b/1.png"),
        excluded("e", "dark", category="nut"),
    ]
    monkeypatch.setattr(
        job, "read_exclusions", lambda _: {(change.category, change.image_id): change for change in changes}
    )
    manifest = build_manifest(schema_version=1, shards=[], rejected=[], defects={}, ingests=[])
    _, reasons = job._without_images(small_config(), Location.parse("/a"), manifest, ["lid"], [])
    assert reasons == {"lid": {"s3://b/0.png": "blurred; a hand", "s3://b/1.png": "blurred"}}
