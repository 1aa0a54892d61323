"""What of an earlier night can be compared after a bundle was replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.region import RegionMask
from uniad_ray.drift.samples import SampledImage, write_sample
from uniad_ray.errors import BundleError
from uniad_ray.nights.drift import _comparable

_COLUMNS = np.tile(np.arange(8), (6, 1))
LEFT, RIGHT = RegionMask.of(_COLUMNS < 4), RegionMask.of(_COLUMNS >= 4)
VIEWS: dict[str, tuple[Any, Any]] = {
    "v1": (None, None),
    "v2": (None, None),
    "v3": ((0, 4095), None),
    "v4": ((0, 4095), None),
    "left": (None, LEFT),
    "left again": (None, LEFT),
    "right": (None, RIGHT),
}


class FakeStore:
    """Stands in for a bundle store: only value ranges and regions."""

    def manifest(self, category: str, version: str) -> Any:
        """The configuration of a version; `gone` has none."""
        if version not in VIEWS:
            raise BundleError(f"no bundle {category} {version}")
        value_range, region = VIEWS[version]
        return SimpleNamespace(config=SimpleNamespace(value_range=value_range, region=region))


def scored(version: str) -> Any:
    return SimpleNamespace(categories={"part": SimpleNamespace(bundle_version=version)})


@pytest.mark.parametrize(
    ("before", "now", "has_scores", "has_brightness"),
    [
        ("v1", "v1", True, True),
        ("v1", "v2", False, True),
        ("v3", "v4", False, True),
        ("v2", "v3", False, False),
        ("gone", "v3", False, False),
        ("gone", "v1", False, True),
        ("left", "left again", False, True),
        ("left", "right", False, False),
        ("left", "v1", False, False),
        ("gone", "left", False, False),
    ],
)
def test_brightness_is_compared_within_one_value_range_and_region(
    tmp_path: Path, before: str, now: str, has_scores: bool, has_brightness: bool
) -> None:
    image = SampledImage("key", "part", 8, 6, 99.0, 1.5, {"patch": 1.5})
    write_sample(Location.parse(tmp_path / "sample.parquet"), [image])
    earlier = SimpleNamespace(sample=Location.parse(tmp_path / "sample.parquet"), read=lambda *_: scored(before))
    (found,) = _comparable(FakeStore(), earlier, scored(now))  # type: ignore[arg-type]
    expected = image if has_scores else replace(image, score=None, experts={})
    assert found == (expected if has_brightness else replace(expected, brightness=None))
