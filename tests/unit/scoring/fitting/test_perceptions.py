from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


class Elsewhere:
    """Extracts in this process, as another one would, until it has extracted `most` batches."""

    def __init__(self, source: DrawnNormalImages, most: int = 100) -> None:
        self.own = Sums()
        self.source = source
        self.most = most
        self.asked: list[list[int]] = []

    def __call__(
        self, batches: Sequence[Sequence[int]], fields: frozenset[str], seconds: float
    ) -> Iterator[Perception | None]:
        assert seconds > 0
        self.asked = [list(batch) for batch in batches]
        alike = ImagePerceptions(self.source, PerceptionPipeline([self.own]), fields, batch_size=2, spill=None)
        for batch in batches[: self.most]:
            found = next(alike.extract(batch, fields), None)
            yield None if found is None else replace(found, originals={})


class Sums:
    """Return the sum of each image as a text; count the images."""

    name = "sums"
    needs: frozenset[str] = frozenset()
    provides = frozenset({"sums/text"})

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, perception: Perception) -> dict[str, Any]:
        self.seen += len(perception)
        return {"sums/text": [str(int(image.sum())) for image in perception.images]}

    def lineage(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("spills", [True, False])
@pytest.mark.parametrize("most", [100, 2, 0])
def test_images_extracted_elsewhere_are_those_extracted_here(tmp_path: Path, spills: bool, most: int) -> None:
    images = DrawnNormalImages(11, damaged=frozenset({4, 5, 8}))
    wanted = frozenset({"sums/text"})
    here, elsewhere, used = Sums(), Elsewhere(images, most), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    noted: list[str] = []
    source = ImagePerceptions(
        images,
        PerceptionPipeline([here]),
        wanted,
        batch_size=2,
        spill=tmp_path / "images" if spills else None,
        on_extracted=lambda perception: noted.extend(perception.row_keys),
        elsewhere=elsewhere,
        used=used,
    )

    asked = [9, 4, 5, 1, 8, 7, 10] if spills else used
    found = {
        key: text
        for batch in source.extract(asked, wanted)
        for key, text in zip(batch.row_keys, batch.texts["sums/text"], strict=True)
    }

    assert elsewhere.asked == [[2, 4], [5, 6], [7, 8], [9, 10]]
    expected = [index for index in asked if index not in images.damaged]
    assert list(found) == [images.rows[index].row_key for index in expected]
    assert list(found.values()) == [str(int(images.image(index).sum())) for index in expected]
    assert noted == [images.rows[index].row_key for index in used if index not in images.damaged]
    assert here.seen + elsewhere.own.seen == 7
    assert (elsewhere.own.seen == 0) == (most == 0)
    again = [key for batch in source.extract(asked, wanted) for key in batch.row_keys]
    assert again == list(found)
    assert len(noted) == 7


def test_nothing_is_extracted_elsewhere_if_that_is_refused(tmp_path: Path) -> None:
    images, here = DrawnNormalImages(5), Sums()
    source = ImagePerceptions(
        images,
        PerceptionPipeline([here]),
        here.provides,
        batch_size=2,
        spill=tmp_path / "images",
        elsewhere=lambda *_: None,
        used=range(5),
    )

    assert [list(batch.row_keys) for batch in source.extract([3, 1], here.provides)] == [
        [images.rows[index].row_key for index in (3, 1)]
    ]
    assert here.seen == 5
