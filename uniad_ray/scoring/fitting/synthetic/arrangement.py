"""Synthetic logical anomalies: parts that are missing, too many, in a wrong place or of a wrong kind, without a seam.

What they show is normal, patch by patch; the surroundings of a part go along with it, its shadow included, and its
place is filled with ground (compare SALAD and CSAD, which change maps of parts instead of images).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.scoring.fitting.synthetic.blending import blend, border, bounds
from uniad_ray.scoring.fitting.synthetic.ground import free_step, in_place_of, with_part, without_part
from uniad_ray.scoring.fitting.synthetic.parts import SMALLEST_PART, Parts, same_ground

_TRIED: Final = 8
"""Parts of an image that are tried, and pairs of parts."""
_FEWEST_OF_A_KIND: Final = 4
_MOST_REPLACED: Final = 12
_SHORTEST: Final = 12
"""Shortest part that can be stretched, pixels."""
_LARGEST_STRETCHED: Final = 0.5
"""Largest area that can be stretched, as a fraction of the image: the liquid in a bottle is no part that moves."""


def missing(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """A part is missing."""
    for number in _tried(parts, rng):
        found = without_part(parts.image, parts, number, others, rng)
        if found is not None:
            return found
    return None


def extra(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:  # noqa: ARG001
    """A part is there once more, in a free place."""
    for number in _tried(parts, rng):
        step = free_step(parts.image, parts, number, rng)
        found = None if step is None else with_part(parts.image, parts.image, parts.cut(number), step)
        if found is not None:
            return found
    return None


def moved(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """A part is in another place, which was free."""
    for number in _tried(parts, rng):
        gap = without_part(parts.image, parts, number, others, rng)
        step = None if gap is None else free_step(gap, parts, number, rng)
        if gap is None or step is None:
            continue
        found = with_part(gap, parts.image, parts.cut(number), step)
        if found is not None:
            return found
    return None


def swapped(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """Two parts of different kinds have changed places."""
    pairs = [
        (one, two)
        for one in parts.movable
        for two in parts.movable
        if one < two and parts.names[one] != parts.names[two] and 0.2 < parts.areas[one] / parts.areas[two] < 5.0
    ]
    for position in rng.permutation(len(pairs))[:_TRIED]:
        one, two = pairs[int(position)]
        gap = without_part(parts.image, parts, one, others, rng, gone=(two,))
        gaps = None if gap is None else without_part(gap, parts, two, others, rng, gone=(one,))
        half = None if gaps is None else in_place_of(gaps, parts, one, parts, two, gone=(one, two))
        found = None if half is None else in_place_of(half, parts, two, parts, one, gone=(one, two))
        if found is not None:
            return found
    return None


def wrong_kind(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """A part of another kind is in the place of one; it comes from this image or another."""
    return _replaced(parts, others, rng, of_same_kind=False)


def other_copy(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """The same kind of part from another image is in the place of one: right alone, perhaps wrong beside the others."""
    return _replaced(parts, others, rng, of_same_kind=True)


def _replaced(parts: Parts, others: Sequence[Parts], rng: np.random.Generator, of_same_kind: bool) -> np.ndarray | None:
    for number in _tried(parts, rng):
        from_here = not others or (not of_same_kind and rng.random() < 0.3)
        source = parts if from_here else others[int(rng.integers(len(others)))]
        fitting = [
            other
            for other in source.movable
            if (source.names[other] == parts.names[number]) is of_same_kind
            and (source is not parts or other != number)
            and 0.1 < source.areas[other] / parts.areas[number] < 5.0
            and same_ground(source.ground(other), parts.ground(number))
        ]
        gap = without_part(parts.image, parts, number, others, rng) if fitting else None
        if gap is None:
            continue
        found = in_place_of(gap, parts, number, source, fitting[int(rng.integers(len(fitting)))])
        if found is not None:
            return found
    return None


def wrong_ratio(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """About a third of the parts of a kind, and at least two, are of another kind, or missing if there is none."""
    counts = Counter(parts.names[number] for number in parts.movable)
    kinds = sorted(kind for kind, count in counts.items() if count >= _FEWEST_OF_A_KIND)
    if not kinds:
        return None
    kind = kinds[int(rng.integers(len(kinds)))]
    own = [number for number in parts.movable if parts.names[number] == kind]
    image, changed = parts.image, 0
    for position in rng.permutation(len(own)):
        if changed == min(max(2, len(own) // 3), _MOST_REPLACED):
            break
        number = own[int(position)]
        unlike = [
            other
            for other in parts.movable
            if parts.names[other] != kind
            and 0.2 < parts.areas[other] / parts.areas[number] < 3.0
            and same_ground(parts.ground(other), parts.ground(number))
        ]
        gap = without_part(image, parts, number, others, rng)
        if gap is None:
            continue
        put = in_place_of(gap, parts, number, parts, unlike[int(rng.integers(len(unlike)))]) if unlike else None
        image, changed = gap if put is None else put, changed + 1
    return image if changed >= 2 else None


def turned(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:
    """A part is turned by half a turn."""
    for number in _tried(parts, rng):
        mask = parts.cut(number)
        upside_down = np.rint(2.0 * parts.centre(number)).astype(int)
        to = upside_down - np.concatenate([np.argwhere(mask), border(mask)])
        if (to < 0).any() or (to >= mask.shape).any():
            continue
        own = upside_down - np.argwhere(mask)
        place, source = np.zeros_like(mask), parts.image.copy()
        place[own[:, 0], own[:, 1]] = True
        there = upside_down - to
        source[to[:, 0], to[:, 1]] = parts.image[there[:, 0], there[:, 1]]
        covered = place & parts.taken(parts.ground(number), {number})
        if covered.sum() > 0.05 * place.sum():
            continue
        gap = without_part(parts.image, parts, number, others, rng)
        found = None if gap is None else blend(gap, source, place)
        if found is not None:
            return found
    return None


def stretched(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray | None:  # noqa: ARG001
    """A part is longer or shorter at one end, by an eighth to a third: a length, a level or an amount."""
    large_enough = [number for number, area in enumerate(parts.areas) if SMALLEST_PART < area < _LARGEST_STRETCHED]
    for position in rng.permutation(len(large_enough))[:_TRIED]:
        number = large_enough[int(position)]
        across, upwards, longer = (rng.random(3) < 0.5).tolist()
        image, mask = parts.image, parts.filled(number)
        taken = parts.taken(parts.ground(number), {number}) & ~mask
        if across:
            image, mask, taken = image.transpose(1, 0, 2), mask.T, taken.T
        if upwards:
            image, mask, taken = image[::-1], mask[::-1], taken[::-1]
        found = _stretched_down(image, mask, taken, parts.margin, rng.uniform(0.12, 0.3), longer)
        if found is None:
            continue
        found = found[::-1] if upwards else found
        return np.ascontiguousarray(found.transpose(1, 0, 2) if across else found)
    return None


def _stretched_down(
    image: np.ndarray, mask: np.ndarray, taken: np.ndarray, margin: int, share: float, longer: bool
) -> np.ndarray | None:
    """Move the lower end of a part; what is below is compressed or stretched in turn."""
    rows, columns = bounds(mask, 0)
    length = rows.stop - rows.start
    by = max(3, round(length * share))
    left, right = max(columns.start - margin, 0), min(columns.stop + margin, mask.shape[1])
    last = rows.stop + 2 * by
    if length < _SHORTEST or last >= len(mask) or taken[rows.stop : last, left:right].mean() > 0.05:
        return None
    to = np.arange(rows.start, last)
    ends = [rows.start, rows.stop + (by if longer else -by), last - 1]
    source = np.interp(to, ends, [rows.start, rows.stop, last - 1])
    places = np.meshgrid(source, np.arange(left, right), indexing="ij")
    warped = np.stack(
        [
            ndimage.map_coordinates(image[..., channel].astype(np.float32), places, order=1, mode="nearest")
            for channel in range(3)
        ],
        axis=-1,
    )
    ramp = np.linspace(0.0, 1.0, margin + 1)[1:]
    fade = np.ones(right - left)
    fade[:margin], fade[-margin:] = np.minimum(fade[:margin], ramp), np.minimum(fade[-margin:], ramp[::-1])
    result = image.copy()
    region = result[to[0] : last, left:right]
    blended = warped * fade[None, :, None] + region * (1.0 - fade[None, :, None])
    result[to[0] : last, left:right] = np.clip(np.rint(blended), 0, 255)
    return result


def _tried(parts: Parts, rng: np.random.Generator) -> Iterator[int]:
    for position in rng.permutation(len(parts.movable))[:_TRIED]:
        yield parts.movable[int(position)]
