"""Take a part out of an image, find a place for it, and put it there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from uniad_ray.scoring.fitting.synthetic.blending import blend, border, bounds, mismatch, shifted
from uniad_ray.scoring.fitting.synthetic.parts import Parts

_ATTEMPTS: Final = 80
_OTHERS: Final = 12
"""Other images that are searched for ground to fill a gap with."""
_JITTER: Final = 4
"""Difference of the views of two images that is tried, pixels."""
_LEAST_VISIBLE: Final = 0.98
"""Least fraction of a part that must remain in the image."""
_FREE_PLACES: Final = 300

Step = tuple[int, int]


def without_part(
    image: np.ndarray,
    parts: Parts,
    number: int,
    others: Sequence[Parts],
    rng: np.random.Generator,
    gone: Collection[int] = (),
) -> np.ndarray | None:
    """Fill the place of a part with its ground, from elsewhere in the image or from another one.

    Of many places that show nothing but this ground, the one that fits best at the border is taken.

    Args:
        image: The image so far, uint8, shape (H, W, 3).
        parts: The parts of the unchanged image.
        number: The part.
        others: Other images.
        rng: Random numbers.
        gone: Parts that are taken out as well.

    Returns:
        The image without the part; None if its ground is nowhere visible in this size.
    """
    mask = parts.cut(number, gone)
    around = border(mask)
    if not len(around):
        return None
    here = image[around[:, 0], around[:, 1]]
    inside = np.argwhere(mask)[::5]
    steps = [(parts, step) for step in _steps(mask, _ATTEMPTS, rng)]
    for position in rng.permutation(len(others))[:_OTHERS]:
        other = others[int(position)]
        near = rng.integers(-_JITTER, _JITTER + 1, size=(2 * _JITTER, 2))
        steps += [(other, (int(down), int(across))) for down, across in near]
        steps += [(other, step) for step in _steps(mask, _JITTER, rng)]
    best: tuple[float, np.ndarray, Step] | None = None
    for source, step in steps:
        there, ring = inside + step, around + step
        if not (_within(there, mask.shape) and _within(ring, mask.shape)):
            continue
        if source.shows(parts.ground(number), there).mean() < _LEAST_VISIBLE:
            continue
        value = mismatch(here, source.image[ring[:, 0], ring[:, 1]])
        if best is None or value < best[0]:
            best = value, source.image, step
    if best is None:
        return None
    _, found, (down, across) = best
    return blend(image, shifted(found, (-down, -across)), mask)


def free_step(image: np.ndarray, parts: Parts, number: int, rng: np.random.Generator) -> Step | None:
    """The step from a part to a free place of its ground, at least half its size away; None if there is none."""
    mask = parts.cut(number)
    around = border(mask)
    if not len(around):
        return None
    here, taken = parts.image[around[:, 0], around[:, 1]], parts.taken(parts.ground(number), {number})
    covered = np.concatenate([np.argwhere(mask)[::7], around])
    height, width = (side.stop - side.start for side in bounds(mask, 0))
    best: tuple[float, Step] | None = None
    for step in _steps(mask, _FREE_PLACES, rng):
        down, across = step
        there, ring = covered + step, around + step
        is_near = abs(down) < height / 2 and abs(across) < width / 2
        if is_near or not _within(there, mask.shape) or taken[there[:, 0], there[:, 1]].any():
            continue
        value = mismatch(here, image[ring[:, 0], ring[:, 1]])
        if best is None or value < best[0]:
            best = value, step
    return None if best is None else best[1]


def with_part(image: np.ndarray, source: np.ndarray, mask: np.ndarray, step: Step) -> np.ndarray | None:
    """Put a cut-out part, moved by a step, into an image; None if it would not be wholly visible.

    Args:
        image: uint8, shape (H, W, 3).
        source: The image that shows the part, of the same shape.
        mask: The part with its margin, bool, shape (H, W).
        step: Rows down and columns to the right.
    """
    moved = shifted(mask, step)
    if moved.sum() < _LEAST_VISIBLE * mask.sum():
        return None
    return blend(image, shifted(source, step), moved)


def in_place_of(
    image: np.ndarray, parts: Parts, number: int, source: Parts, other: int, gone: Collection[int] = ()
) -> np.ndarray | None:
    """Put a part in the middle of the place of another, which has been taken out.

    Args:
        image: The image without the other part.
        parts: The parts of the unchanged image.
        number: The part whose place it is.
        source: The image that shows the new part; may be `parts`.
        other: Number of the new part there.
        gone: Further parts that have been taken out.

    Returns:
        The image; None if the part would cover something else than ground.
    """
    mask = source.cut(other, gone if source is parts else ())
    down, across = np.rint(parts.centre(number) - source.centre(other)).astype(int)
    step = (int(down), int(across))
    covered = shifted(mask, step) & parts.taken(parts.ground(number), {number, *gone})
    return None if covered.sum() > 0.05 * mask.sum() else with_part(image, source.image, mask, step)


def _steps(mask: np.ndarray, count: int, rng: np.random.Generator) -> list[Step]:
    """Random steps that keep a mask in the image."""
    rows, columns = bounds(mask, 2)
    down = rng.integers(-rows.start, max(mask.shape[0] - rows.stop, -rows.start) + 1, size=count)
    across = rng.integers(-columns.start, max(mask.shape[1] - columns.stop, -columns.start) + 1, size=count)
    return list(zip(down.tolist(), across.tolist(), strict=True))


def _within(places: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool(places.min() >= 0 and places[:, 0].max() < shape[0] and places[:, 1].max() < shape[1])
