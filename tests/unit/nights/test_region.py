"""A night of a category with a region: what lies outside of it is no drift."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.nights import CATEGORY, Factory, write_factory
from support.trees import png, write

from uniad_ray.config.region import RegionMask

SIDE = 48
LEFT = np.tile(np.arange(SIDE) < SIDE // 2, (SIDE, 1))
SURE = np.tile(np.arange(SIDE) < SIDE // 2 + 4, (SIDE, 1))
"""The region with a margin, which reaches into the pixels that are decoded from both sides of its edge."""


def arrive(factory: Factory, count: int, bright: np.ndarray) -> None:
    """Images arrive that are brighter in some places."""
    for index in range(count):
        seed = 2000 + factory.arrived + index
        pixels = np.asarray(Image.open(io.BytesIO(png(seed, SIDE))).convert("RGB")).astype(np.float64)
        pixels = np.where(bright[..., None], pixels * 1.5, pixels).clip(0, 255).astype(np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        write(factory.root / f"camera/{seed:05d}.png", sink.getvalue())
    factory.arrived += count


@pytest.mark.usefixtures("jobs_here")
def test_only_light_inside_the_region_is_drift(tmp_path: Path) -> None:
    region = RegionMask.of(LEFT).model_dump()
    write_factory(tmp_path / "prepared", f"regions={{{CATEGORY}: {region}}}")
    factory = Factory.copy(tmp_path / "prepared", tmp_path / "plant")
    arrive(factory, 24, ~SURE)
    outside = factory.night("n1").nights[0]
    assert [finding for finding in outside.findings if finding.measure == "brightness"] == []
    arrive(factory, 24, SURE)
    inside = factory.night("n2").nights[0]
    found = {finding.reference for finding in inside.findings if finding.measure == "brightness"}
    assert found == {"calibration", "last nights"}
