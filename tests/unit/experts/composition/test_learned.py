from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from uniad_ray.errors import BundleError
from uniad_ray.experts.composition.composition import Composition, CompositionConfig
from uniad_ray.experts.composition.learned import LearnedComposition, LearnedCompositionConfig
from uniad_ray.perception.base import Perception
from uniad_ray.perception.segments import Segments

CONFIG = LearnedCompositionConfig(segments=("parts/segments",), copies=4)
COLOURS = np.array([(90, 90, 90), (200, 40, 40), (40, 60, 200)], dtype=np.uint8)


def perceived(images: Sequence[tuple[int, int]], first_seed: int = 0, *, named: bool = True) -> Perception:
    """Red squares in random cells of a grid, above a blue stripe that is no segment.

    Args:
        images: Number of squares, and height of the stripe in pixels.
        first_seed: Seed of the places of the first image.
        named: Whether the squares are segments.
    """
    labels = np.zeros((len(images), 80, 80), dtype=np.uint8)
    segments = []
    for number, (squares, height) in enumerate(images):
        masks = np.zeros((squares, 80, 80), dtype=bool)
        cells = np.random.default_rng(first_seed + number).permutation(48)[:squares]
        for mask, cell in zip(masks, cells, strict=True):
            row, column = divmod(int(cell), 8)
            mask[10 * row + 1 : 10 * row + 9, 10 * column + 1 : 10 * column + 9] = True
            labels[number][mask] = 1
        labels[number, 80 - height :] = 2
        segments.append(Segments.of(masks if named else masks[:0]))
    keys = [f"{first_seed + number:04d}" for number in range(len(images))]
    fields = {"colours/labels": torch.from_numpy(labels)[:, None], "parts/segments": segments}
    return Perception(keys, COLOURS[labels]).extended(fields)


NORMAL = perceived([(5, 4 + number % 4) for number in range(40)])


@functools.cache
def fitted() -> LearnedComposition:
    expert = LearnedComposition("learned", CONFIG)
    expert.fit(lambda: iter([NORMAL]))
    return expert


@functools.cache
def plain() -> Composition:
    expert = Composition("plain", CompositionConfig())
    expert.fit(lambda: iter([NORMAL]))
    return expert


def test_a_missing_part_counts_more_than_a_change_that_parts_never_make() -> None:
    batch = perceived([(4, 5), (6, 5), (5, 9)], first_seed=500)

    learned_missing, learned_extra, learned_stripe = fitted().score(batch).scores
    missing, _, stripe = plain().score(batch).scores

    assert min(learned_missing, learned_extra) > 5.0
    assert missing / stripe < 0.5 * learned_missing / learned_stripe


def test_normal_images_stay_normal() -> None:
    scores = fitted().score(perceived([(5, 4 + number % 4) for number in range(20)], first_seed=700)).scores

    assert scores.mean() < 1.5


def test_reasons_name_what_is_wrong() -> None:
    evidence = fitted().score(perceived([(4, 5), (5, 5)], first_seed=500))

    assert "4 bright red regions, 5 in normal images" in evidence.reasons[0]
    assert evidence.reasons[1] == []


def test_without_parts_the_plain_composition_is_learned() -> None:
    without = LearnedComposition("learned", CONFIG)
    without.fit(lambda: iter([perceived([(5, 4 + number % 4) for number in range(40)], named=False)]))

    batch = perceived([(4, 5), (5, 5)], first_seed=500)
    np.testing.assert_array_equal(without.score(batch).scores, plain().score(batch).scores)


def test_only_some_images_are_altered_and_all_are_measured() -> None:
    config = LearnedCompositionConfig(segments=("parts/segments",), altered=3, copies=4)
    expert = LearnedComposition("learned", config)
    expert.fit(lambda: iter([NORMAL]))

    np.testing.assert_array_equal(expert.state().arrays["0/centre"], fitted().state().arrays["0/centre"])
    assert not np.array_equal(expert.state().arrays["0/precision"], fitted().state().arrays["0/precision"])


def test_the_state_restores_the_same_scores() -> None:
    expert, batch = fitted(), perceived([(4, 5), (5, 5)], first_seed=500)

    restored = LearnedComposition.from_state("learned", CONFIG, expert.state())

    np.testing.assert_array_equal(restored.score(batch).scores, expert.score(batch).scores)
    with pytest.raises(BundleError, match="fit the category again"):
        LearnedComposition.from_state("learned", CONFIG, type(expert.state())())
