from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.composition.composition import Composition, CompositionConfig
from uniad_ray.perception.base import Perception

GROUND, RED, BLUE = (90, 90, 90), (200, 40, 40), (40, 60, 200)


def image_of(red: int, blue: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Squares in random cells of a grid on grey: labels, uint8, shape (80, 80), and the image."""
    cells = np.random.default_rng(seed).permutation(64)[: red + blue]
    labels = np.zeros((80, 80), dtype=np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(int(cell), 8)
        labels[10 * row + 1 : 10 * row + 9, 10 * column + 1 : 10 * column + 9] = 1 if number < red else 2
    return labels, np.array([GROUND, RED, BLUE], dtype=np.uint8)[labels]


def perceived(counts: Sequence[tuple[int, int]], first_seed: int = 0) -> Perception:
    """Images with two equal label maps."""
    drawn = [image_of(*count, seed=first_seed + number) for number, count in enumerate(counts)]
    labels = torch.from_numpy(np.stack([np.stack([one, one]) for one, _ in drawn]))
    keys = [f"{first_seed + number:04d}" for number in range(len(counts))]
    return Perception(keys, np.stack([image for _, image in drawn])).extended({"colours/labels": labels})


def fitted(counts: Sequence[tuple[int, int]]) -> Composition:
    expert = Composition("composition", CompositionConfig())
    expert.fit(lambda: iter([perceived(counts)]))
    return expert


RATIO = [(number, 2 * number) for number in (4, 5, 6, 7, 8, 9)] * 8


def test_a_broken_ratio_scores_above_all_normal_images() -> None:
    expert = fitted(RATIO)
    normal = expert.score(perceived(RATIO[:24], first_seed=500)).scores
    broken = expert.score(perceived([(8, 8), (4, 16), (9, 9)], first_seed=900)).scores

    assert broken.min() > normal.max()
    assert normal.mean() < 1.5


def test_one_part_too_many_is_put_in_words() -> None:
    evidence = fitted([(6, 3)] * 30).score(perceived([(6, 4), (6, 3)], first_seed=900))

    assert evidence.scores[0] > evidence.scores[1] + 3.0
    assert "4 bright blue regions, 3 in normal images" in evidence.reasons[0]
    assert evidence.reasons[1] == []


def test_the_map_shows_the_colour_that_is_wrong() -> None:
    labels, _ = image_of(6, 5, seed=900)
    evidence = fitted([(6, 3)] * 30).score(perceived([(6, 5)], first_seed=900))

    assert evidence.maps is not None
    side = evidence.maps.shape[1]
    places = ((np.arange(side) + 0.5) * 80 / side).astype(int)
    on_map = labels[places[:, None], places]
    assert evidence.maps[0][on_map == 2].min() > 2.0 * evidence.maps[0][on_map == 1].max()


def test_the_state_restores_the_same_scores() -> None:
    expert, batch = fitted(RATIO), perceived(RATIO[:5], first_seed=700)

    restored = Composition.from_state("composition", CompositionConfig(), expert.state())

    np.testing.assert_array_equal(restored.score(batch).scores, expert.score(batch).scores)


def test_normal_images_may_lack_the_last_label() -> None:
    expert = fitted([(6, 3), (6, 0), (6, 3), (6, 0)])

    assert np.isfinite(expert.score(perceived([(6, 0), (6, 6)], first_seed=900)).scores).all()


def test_one_image_is_too_few() -> None:
    with pytest.raises(FitError, match="at least 2 normal images"):
        fitted([(6, 3)])


def test_a_state_without_a_composition_is_refused() -> None:
    state = fitted(RATIO).state()

    with pytest.raises(BundleError, match="fit the category again"):
        Composition.from_state("composition", CompositionConfig(map_size=16), state)
