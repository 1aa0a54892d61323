from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segmentation.part_segmenter import PartSegmenter, PartSegmenterConfig
from uniad_ray.perception.segments import Segments, overlaps

HEIGHT, WIDTH = 96, 128
GROUND, PART, LABEL = (60, 62, 66), (200, 160, 40), (40, 90, 200)
Box = tuple[int, int, int, int]


def places(seed: int) -> list[Box]:
    """Three parts in random places that do not touch, one of them twice as long."""
    rng = np.random.default_rng(seed)
    found = []
    for column, length in ((6, 14), (48, 14), (86, 28)):
        top, left = int(rng.integers(8, 60)), column + int(rng.integers(0, 8))
        found.append((top, left, top + 14, left + length))
    return found


def drawn(seed: int, parts: list[Box] | None = None) -> np.ndarray:
    """A grainy ground with a vignette, and parts of one colour."""
    rng = np.random.default_rng([seed, 1])
    image = np.full((HEIGHT, WIDTH, 3), GROUND, dtype=np.float64)
    row, column = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    image *= (1.0 - 0.15 * (row**2 + column**2))[..., None]
    for top, left, bottom, right in places(seed) if parts is None else parts:
        image[top:bottom, left:right] = PART
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def truth(parts: list[Box], scale: int = 1) -> np.ndarray:
    masks = np.zeros((len(parts), HEIGHT // scale, WIDTH // scale), dtype=bool)
    for mask, box in zip(masks, parts, strict=True):
        top, left, bottom, right = (side // scale for side in box)
        mask[top:bottom, left:right] = True
    return masks


def perception(*images: np.ndarray, first: int = 0) -> Perception:
    return Perception([f"{first + number:032x}" for number in range(len(images))], np.stack(images))


def segmenter(**changes: Any) -> PartSegmenter:
    return PartSegmenter("objects", PartSegmenterConfig.model_validate(changes), "cpu")


NORMAL = [drawn(seed) for seed in range(10)]


def fitted(images: list[np.ndarray] = NORMAL, **changes: Any) -> PartSegmenter:
    found = segmenter(**changes)
    found.fit(lambda: [perception(*images[:4]), perception(*images[4:], first=4)])
    return found


def segments_of(found: PartSegmenter, image: np.ndarray) -> Segments:
    return found.extract(perception(image))["objects/segments"][0]


def test_the_parts_are_found_and_nothing_else() -> None:
    found = segments_of(fitted(), drawn(77))

    assert found.size == (HEIGHT, WIDTH)
    assert len(found) == 3
    assert overlaps(truth(places(77)), found.masks()).max(axis=1).min() >= 0.85
    # Boxes are filled.
    assert found.confidences.min() > 0.9


def test_masks_are_reduced_to_their_side() -> None:
    found = segments_of(fitted(side=64), drawn(77))

    assert found.size == (48, 64)
    assert overlaps(truth(places(77), 2), found.masks()).max(axis=1).min() >= 0.7


def test_a_missing_and_an_additional_part_change_the_count() -> None:
    found = fitted()

    assert len(segments_of(found, drawn(5, places(5)[1:]))) == 2
    assert len(segments_of(found, drawn(5, [*places(5), (78, 10, 92, 24)]))) == 4


def test_parts_move_with_the_image_and_frames_do_not_appear() -> None:
    found = fitted()
    moved = np.roll(drawn(7, [(20, 40, 34, 54)]), (9, 13), axis=(0, 1))

    assert len(segments_of(found, moved)) == 1
    assert overlaps(truth([(29, 53, 43, 67)]), segments_of(found, moved).masks()).max() >= 0.85


def test_a_label_on_a_part_is_a_segment_of_its_own() -> None:
    def labelled(seed: int) -> np.ndarray:
        image = drawn(seed)
        top, left, _, _ = places(seed)[2]
        image[top + 4 : top + 10, left + 8 : left + 20] = LABEL
        return image

    found = segments_of(fitted([labelled(seed) for seed in range(10)]), labelled(50))

    top, left, _, _ = places(50)[2]
    label = truth([(top + 4, left + 8, top + 10, left + 20)])
    assert overlaps(label, found.masks()).max() >= 0.7
    assert overlaps(truth(places(50)[:2]), found.masks()).max(axis=1).min() >= 0.85


@pytest.mark.parametrize("grain", [0.0, 30.0])
def test_images_without_parts_have_no_segments(grain: float) -> None:
    rng = np.random.default_rng(0)
    images = [
        np.clip(rng.normal(120, grain, (HEIGHT, WIDTH, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8) for _ in range(6)
    ]

    assert len(segments_of(fitted(images), images[0])) == 0


def test_the_order_of_images_does_not_matter() -> None:
    one, other = segmenter(images=6), segmenter(images=6)
    batches = [perception(image, first=number) for number, image in enumerate(NORMAL)]
    one.fit(lambda: batches)
    other.fit(lambda: reversed(batches))

    assert one.state().document == other.state().document
    for name, centres in one.state().arrays.items():
        np.testing.assert_array_equal(centres, other.state().arrays[name])


def test_a_restored_segmenter_finds_the_same() -> None:
    found, again = fitted(), segmenter()
    again.restore(found.state())

    one, other = segments_of(found, drawn(99)), segments_of(again, drawn(99))
    np.testing.assert_array_equal(one.packed, other.packed)
    np.testing.assert_array_equal(one.confidences, other.confidences)
    assert again.state().document == found.state().document


def test_unfitted_segmenter_raises() -> None:
    with pytest.raises(FitError, match="not fitted"):
        segmenter().extract(perception(drawn(0)))
    with pytest.raises(FitError, match="at least 2 normal images are needed, not 1"):
        segmenter().fit(lambda: [perception(drawn(0))])


CHOSEN = {"clusters": 3, "labels": [1], "smallest_area": 0.01, "neck": 0.0}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no labels of parts"),
        ({"label_sets": [{"clusters": 3}]}, "no labels of parts"),
        ({"label_sets": [CHOSEN | {"clusters": 4}]}, "no labels of parts"),
        ({"label_sets": [CHOSEN | {"clusters": 2}]}, "colour centres of another shape"),
    ],
)
def test_invalid_state_is_rejected(document: dict[str, Any], message: str) -> None:
    arrays = {"3": np.zeros((3, 3), dtype=np.float32), "2": np.zeros((3, 3), dtype=np.float32)}

    with pytest.raises(BundleError, match=message):
        segmenter().restore(State(arrays=arrays, document=document))


def test_segments_of_trays_are_the_parts_that_were_drawn() -> None:
    scenes = [render(draw_scene(SceneConfig(seed=12), "train", "good", n), SceneRules(), 256) for n in range(10)]
    found = segmenter()
    found.fit(lambda: [perception(*(one.image for one in scenes[:6]))])

    best = []
    for scene in scenes[6:]:
        best += overlaps(np.stack(scene.part_masks), segments_of(found, scene.image).masks()).max(axis=1).tolist()

    assert np.mean(best) >= 0.7
