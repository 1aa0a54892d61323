from __future__ import annotations

import numpy as np

from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.synthetic.parts import Parts, same_ground

FLOOR, WALL, RED = (np.array(colour, dtype=np.uint8) for colour in ([80, 90, 90], [180, 180, 180], [220, 20, 20]))


def box(top: int, left: int, height: int, width: int, size: int = 90) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def tray() -> Parts:
    """Two compartments between walls; a part with a hole lies in the left one."""
    image = np.broadcast_to(WALL, (90, 90, 3)).copy()
    left, right = box(10, 6, 60, 36), box(10, 48, 60, 36)
    ring = box(30, 14, 16, 16) & ~box(36, 20, 4, 4)
    image[left | right] = FLOOR
    image[ring] = RED
    return Parts(image, Segments.of(np.array([left & ~ring, right, ring]), names=["floor-a", "floor-b", "ring"]))


def test_owner_is_the_smallest_segment() -> None:
    parts = tray()
    assert parts.names == ("floor-b", "floor-a", "ring")
    assert parts.owner[0, 0] == -1
    assert parts.owner[60, 60] == 0
    assert parts.owner[12, 8] == 1
    assert parts.owner[31, 15] == 2
    np.testing.assert_allclose(parts.areas * 8100, [60 * 36, 60 * 36 - 240, 240])


def test_ground_is_what_a_part_lies_on() -> None:
    parts = tray()
    ring = parts.names.index("ring")
    assert ring in parts.movable
    np.testing.assert_allclose(parts.ground(ring), FLOOR)
    # Compartments have names of their own, but the same ground.
    places = np.array([[60, 60], [12, 8], [31, 15], [0, 0]])
    assert parts.shows(parts.ground(ring), places).tolist() == [True, True, False, False]
    taken = parts.taken(parts.ground(ring))
    assert taken[31, 15]
    assert taken[0, 0]
    assert not parts.taken(parts.ground(ring), {ring})[31, 15]
    # The compartments lie between walls, which are in no segment.
    assert parts.ground(0) is None


def test_cut_takes_the_hole_and_a_margin_of_ground() -> None:
    parts = tray()
    assert parts.margin == 3
    cut = parts.cut(parts.names.index("ring"))
    expected = box(27, 11, 22, 22)
    assert cut[36, 20]
    assert not (cut & ~expected).any()
    # Corners of the margin are round.
    assert cut.sum() > 0.9 * expected.sum()


def test_margin_ends_at_other_parts() -> None:
    image = np.broadcast_to(FLOOR, (90, 90, 3)).copy()
    first, second = box(30, 30, 16, 16), box(30, 48, 16, 10)
    image[first], image[second] = RED, WALL
    parts = Parts(image, Segments.of(np.array([first, second]), names=["a", "b"]))
    assert not (parts.cut(0) & second).any()
    assert (parts.cut(0, without=(1,)) & second).any()


def test_segments_at_the_border_of_the_image_cannot_be_moved() -> None:
    image = np.broadcast_to(FLOOR, (90, 90, 3)).copy()
    masks = np.array([box(0, 30, 16, 16), box(50, 30, 16, 16)])
    assert Parts(image, Segments.of(masks, names=["a", "a"])).movable == (1,)


def test_masks_smaller_than_the_image_are_enlarged() -> None:
    image = np.broadcast_to(FLOOR, (180, 180, 3)).copy()
    image[60:92, 40:72] = RED
    parts = Parts(image, Segments.of(box(30, 20, 16, 16)[None], names=["a"]))
    np.testing.assert_array_equal(parts.filled(0), (image == RED).all(axis=2))


def test_images_without_segments_have_no_parts() -> None:
    image = np.broadcast_to(FLOOR, (90, 90, 3)).copy()
    for segments in (None, Segments.of(np.zeros((0, 90, 90), dtype=bool))):
        parts = Parts(image, segments)
        assert parts.movable == ()
        assert (parts.owner == -1).all()


def test_grounds_of_about_one_colour_are_the_same() -> None:
    colour = np.array([80.0, 90.0, 90.0])
    assert same_ground(colour, colour + 15.0)
    assert not same_ground(colour, colour + 17.0)
    assert same_ground(None, None)
    assert not same_ground(None, colour)
