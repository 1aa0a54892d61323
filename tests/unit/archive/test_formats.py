from __future__ import annotations

from typing import Any

import pytest

from uniad_ray.archive.formats import VersionedKind, other_format
from uniad_ray.archive.stores.location import Location


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("bundle", "fit again"),
        ("run", "score again with another --out"),
        ("sidecar", "precompute again with another --out"),
    ],
)
@pytest.mark.parametrize("document", [{"format_version": 1}, {"plan": {"format_version": 1}}], ids=["plan", "manifest"])
def test_other_version_is_named_with_advice(kind: VersionedKind, advice: str, document: dict[str, Any]) -> None:
    message = other_format(Location.parse("/x/manifest.json"), document, kind, 2)
    assert message == f"/x/manifest.json: {kind} format 1; this version of uniad_ray reads 2; {advice}"


@pytest.mark.parametrize(
    "document", [{"format_version": 2}, {"plan": {"format_version": 2}}, {}, {"plan": 1}, [], None]
)
def test_same_or_no_version_is_accepted(document: Any) -> None:
    assert other_format(Location.parse("/x/plan.json"), document, "run", 2) is None
