from __future__ import annotations

import numpy as np
import pytest
import torch

from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segmentation.colour_labels import ColourLabels, ColourLabelsConfig

GROUND, RED, BLUE = (90, 90, 90), (200, 40, 40), (40, 60, 200)


def image_of(height: int = 60, width: int = 90) -> np.ndarray:
    image = np.full((height, width, 3), GROUND, dtype=np.uint8)
    image[10:30, 10:30] = RED
    image[40:50, 60:80] = BLUE
    return image


def fitted(image: np.ndarray, **options: object) -> ColourLabels:
    extractor = ColourLabels("colours", ColourLabelsConfig.model_validate(options), "cpu")
    extractor.fit(lambda: iter([Perception(["0" * 32, "1" * 32], np.stack([image, image]))]))
    return extractor


def labels_of(extractor: ColourLabels, image: np.ndarray) -> torch.Tensor:
    return extractor.extract(Perception(["2" * 32], image[None]))["colours/labels"]


def test_each_colour_has_a_label_and_the_most_frequent_one_is_0() -> None:
    labels = labels_of(fitted(image_of(), clusters=[3]), image_of())

    assert (labels.dtype, tuple(labels.shape)) == (torch.uint8, (1, 1, 60, 90))
    assert int(labels[0, 0, 0, 0]) == 0
    assert len({int(labels[0, 0, row, column]) for row, column in ((0, 0), (20, 20), (45, 70))}) == 3


def test_there_is_one_map_for_each_number_of_clusters() -> None:
    labels = labels_of(fitted(image_of(), clusters=[2, 3]), image_of())

    assert [int(labels[0, number].max()) for number in range(2)] == [1, 2]


def test_numbers_above_the_number_of_colours_are_left_out() -> None:
    plain = np.full((40, 40, 3), GROUND, dtype=np.uint8)

    assert labels_of(fitted(image_of(), clusters=[2, 64]), image_of()).shape[1] == 1
    assert labels_of(fitted(plain, clusters=[2, 3]), plain).unique().tolist() == [0]


def test_large_images_are_reduced_and_keep_their_aspect() -> None:
    image = np.repeat(np.repeat(image_of(), 4, axis=0), 4, axis=1)

    assert labels_of(fitted(image, side=180), image).shape[2:] == (120, 180)


def test_restored_colours_give_the_same_labels() -> None:
    extractor = fitted(image_of())
    restored = ColourLabels("colours", ColourLabelsConfig(), "cpu")
    restored.restore(extractor.state())

    assert torch.equal(labels_of(restored, image_of()), labels_of(extractor, image_of()))


def test_a_state_without_centres_is_refused() -> None:
    extractor = ColourLabels("colours", ColourLabelsConfig(), "cpu")

    with pytest.raises(BundleError, match="fit the category again"):
        extractor.restore(State(arrays={}, document={}))
    with pytest.raises(FitError, match="not fitted"):
        labels_of(extractor, image_of())
