from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support.normal_images import DrawnNormalImages

from uniad_ray.perception.base import Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.perceptions import ExtendedPerceptions, ImagePerceptions


class Pieces:
    """Return as many named segments with vectors as the row key says; count the images."""

    name = "pieces"
    needs: frozenset[str] = frozenset()
    provides = frozenset({"pieces/segments", "pieces/vectors"})

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, perception: Perception) -> dict[str, Any]:
        self.seen += len(perception)
        counts = [int(key) for key in perception.row_keys]
        masks = [np.tri(count, 30, dtype=bool).reshape(count, 5, 6) for count in counts]
        return {
            "pieces/segments": [Segments.of(each).named([f"part-{n}" for n in range(len(each))]) for each in masks],
            "pieces/vectors": [np.full((count, 4), count, dtype=np.float32) for count in counts],
        }

    def lineage(self) -> dict[str, Any]:
        return {}


class Counting:
    """Return the number of segments."""

    name = "counting"
    needs = frozenset({"pieces/segments"})
    provides = frozenset({"counting/text"})

    def extract(self, perception: Perception) -> dict[str, Any]:
        return {"counting/text": [f"{len(each)} segments" for each in perception.segments["pieces/segments"]]}

    def lineage(self) -> dict[str, Any]:
        return {}


def test_segments_and_vectors_round_trip(tmp_path: Path) -> None:
    pieces = Pieces()
    pipeline = PerceptionPipeline([pieces, Counting()])
    images = ImagePerceptions(DrawnNormalImages(3), pipeline, pieces.provides, batch_size=2, spill=tmp_path / "images")
    counted = ExtendedPerceptions(images, pipeline, frozenset({"counting/text"}), tmp_path / "texts")
    wanted = frozenset({"pieces/segments", "pieces/vectors", "counting/text"})

    passes = [list(counted.extract(range(3), wanted)) for _ in range(2)]

    assert pieces.seen == 3
    for found in passes:
        assert [text for batch in found for text in batch.texts["counting/text"]] == [f"{n} segments" for n in range(3)]
        segments = [each for batch in found for each in batch.segments["pieces/segments"]]
        vectors = [each for batch in found for each in batch.vectors["pieces/vectors"]]
        for count in range(3):
            assert segments[count].names == tuple(f"part-{n}" for n in range(count))
            expected = np.tri(count, 30, dtype=bool).reshape(count, 5, 6)[::-1]
            np.testing.assert_array_equal(segments[count].masks(), expected)
            np.testing.assert_array_equal(vectors[count], np.full((count, 4), count, dtype=np.float32))
    assert [batch.names for batch in images.extract(range(3), frozenset({"pieces/vectors"}))] == [
        frozenset({"pieces/vectors"})
    ] * 2


class Captions:
    """Return the width of the original image as a text; nothing about the second image."""

    name = "caption"
    needs = frozenset({"pieces/segments"})
    provides = frozenset({"caption/text"})

    def extract(self, perception: Perception) -> dict[str, Any]:
        widths = [perception.originals[key].decode() for key in perception.row_keys]
        return {"caption/text": [Missing("empty answer") if width == "wide" else width for width in widths]}

    def lineage(self) -> dict[str, Any]:
        return {}


def test_missing_texts_and_originals_pass_the_spilled_files(tmp_path: Path) -> None:
    pieces = Pieces()
    pipeline = PerceptionPipeline([pieces, Captions()])
    drawn = DrawnNormalImages(3)
    drawn.originals = {row.row_key: data for row, data in zip(drawn.rows, (b"small", b"wide", b"tall"), strict=True)}
    images = ImagePerceptions(drawn, pipeline, pieces.provides, batch_size=3, spill=tmp_path / "images")
    captioned = ExtendedPerceptions(images, pipeline, frozenset({"caption/text"}), tmp_path / "texts")

    for _ in range(2):
        (found,) = captioned.extract(range(3), frozenset({"caption/text"}))
        assert found.missing == {"caption/text": {drawn.rows[1].row_key: "empty answer"}}
        assert list(found.complete({"caption/text"}).texts["caption/text"]) == ["small", "tall"]
