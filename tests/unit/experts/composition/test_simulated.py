from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.composition.simulated import LabelledParts, altered_labels
from uniad_ray.perception.segments import Segments

COARSER = np.array([0, 1, 1], dtype=np.uint8)
"""The second label map joins the labels 1 and 2."""


def image_of(*parts: tuple[int, int, int, int, int]) -> LabelledParts:
    """Rectangles on a ground of label 0: two label maps, uint8, shape (2, 60, 80).

    Args:
        parts: Label, top, left, height and width of each.
    """
    labels = np.zeros((60, 80), dtype=np.uint8)
    masks = np.zeros((len(parts), 60, 80), dtype=bool)
    for mask, (label, top, left, height, width) in zip(masks, parts, strict=True):
        mask[top : top + height, left : left + width] = True
        labels[mask] = label
    return LabelledParts.of(np.stack([labels, COARSER[labels]]), [Segments.of(masks)])


RED, BLUE = (1, 10, 12, 8, 8), (2, 36, 50, 6, 14)


def areas(altered: list[np.ndarray], label: int) -> set[int]:
    return {int((labels[0] == label).sum()) for labels in altered}


def copies(*images: LabelledParts, each: int = 60, seed: int = 0) -> list[np.ndarray]:
    return [labels for _, labels in altered_labels(images, each, seed)]


def test_parts_are_removed_and_added_and_moved_whole() -> None:
    altered = copies(image_of(RED, BLUE))

    assert areas(altered, 1) == {0, 64, 128}
    assert {0, 84, 168} <= areas(altered, 2)
    moved = [
        labels[0] for labels in altered if (labels[0] == 1).sum() == 64 and not (labels[0][10:18, 12:20] == 1).any()
    ]
    assert moved


def test_all_label_maps_are_altered_alike() -> None:
    for labels in copies(image_of(RED, BLUE)):
        np.testing.assert_array_equal(labels[1], COARSER[labels[0]])


def test_parts_are_turned_about_their_centre() -> None:
    upright = np.zeros((60, 80), dtype=bool)
    upright[32:46, 54:60] = True

    assert any(np.array_equal(labels[0] == 2, upright) for labels in copies(image_of(BLUE)))


def test_parts_are_exchanged_for_what_another_image_has_there() -> None:
    other = (2, 10, 12, 8, 8)
    exchanged = image_of(other, BLUE).labels

    assert any(np.array_equal(labels, exchanged) for labels in copies(image_of(RED, BLUE), image_of(other, BLUE)))


def test_a_plate_under_a_part_is_no_obstacle() -> None:
    plate = (2, 5, 5, 20, 50)
    on_plate = image_of(plate, (1, 11, 12, 4, 4))

    removed = [labels[0] for labels in copies(on_plate) if not (labels[0] == 1).any()]
    assert any((labels[11:15, 12:16] == 2).all() for labels in removed)


def test_a_segment_of_most_of_the_image_is_no_part() -> None:
    assert image_of((1, 0, 0, 60, 40)).parts == ()
    assert copies(image_of((1, 0, 0, 60, 40))) == []


def test_number_of_copies_and_of_the_image_are_given() -> None:
    images = (image_of(RED, BLUE), image_of(), image_of(BLUE))

    assert [number for number, _ in altered_labels(images, 5, 0)] == [0] * 5 + [2] * 5


@pytest.mark.parametrize("place", [(0, 0), (0, 72), (52, 0), (52, 72)])
def test_parts_at_the_border_are_altered(place: tuple[int, int]) -> None:
    altered = copies(image_of((1, *place, 8, 8)))

    assert 0 in areas(altered, 1)
    assert all(labels.shape == (2, 60, 80) for labels in altered)


def test_the_seed_decides_and_the_original_stays() -> None:
    image = image_of(RED, BLUE)
    before = image.labels.copy()
    first, second, third = copies(image), copies(image), copies(image, seed=1)

    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(first, third, strict=True))
    np.testing.assert_array_equal(image.labels, before)
