"""Formats of counts."""

from __future__ import annotations

from uniad_ray.metrics.wording import count


def test_counts_have_separators_and_plurals() -> None:
    assert count(12345) == "12,345"
    assert count(1, "image") == "1 image"
    assert count(0, "image") == "0 images"
    assert count(1234, "image") == "1,234 images"
