from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.segmentation.part_candidates import (
    LabelSet,
    PartCriteria,
    candidate_sets,
    choose_label_sets,
    distinct_objects,
    edge_agreement,
    persistence_of,
)

SIDE = 64
CRITERIA = PartCriteria(
    least_persistence=0.7, least_edge=0.6, scrap_cost=0.15, areas=(0.002,), largest_area=0.4, most_sets=4, necks=(0.5,)
)
Maps = Mapping[int, np.ndarray]
SHARP = np.ones((SIDE, SIDE), dtype=np.float32)
"""Every pixel has the strongest edge, so that only persistence decides."""


def boxes(*places: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for top, left, bottom, right in places:
        mask[top:bottom, left:right] = True
    return mask


def image(seed: int, *, scraps: bool = False) -> Maps:
    """A part that every clustering labels 1, and ground whose labels have no two clusterings in common."""
    rng = np.random.default_rng(seed)
    down, across = rng.integers(6, 40, 2)
    part = boxes((down, across, down + 12, across + 12))
    maps = {}
    for clusters in (2, 3, 4, 5):
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        if scraps and clusters > 2:
            for _ in range(6):
                top, left = rng.integers(2, 56, 2)
                labels[top : top + 5, left : left + 5] = 2
        labels[part] = 1
        maps[clusters] = labels
    return maps


def test_each_label_and_all_but_the_ground_are_candidates() -> None:
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    labels[20:40, 20:40] = 1
    labels[:, :2] = 2

    found = candidate_sets([{3: labels}])

    # The frame has the labels 0, 2 and 1, the most frequent first.
    assert found == [(3, (0,)), (3, (1,)), (3, (1, 2)), (3, (2,))]


def test_the_part_is_chosen_and_the_texture_is_not() -> None:
    images = [image(seed, scraps=True) for seed in range(6)]

    chosen = choose_label_sets(images, [SHARP] * len(images), CRITERIA)

    assert len(chosen) == 1
    assert chosen[0].labels[0] == 1
    assert 0 not in chosen[0].labels
    shown = chosen[0].regions(images[0][chosen[0].clusters], 0.4)
    assert (shown > 0)[images[0][2] == 1].all()


def test_a_region_that_only_two_clusterings_show_is_no_part() -> None:
    maps = image(0)
    odd = {clusters: labels if clusters < 4 else np.zeros_like(labels) for clusters, labels in maps.items()}

    assert choose_label_sets([odd], [SHARP], CRITERIA) == ()


def test_a_region_without_edges_is_no_part() -> None:
    images = [image(seed) for seed in range(3)]

    assert choose_label_sets(images, [SHARP * 0.65] * 3, CRITERIA) == ()
    assert len(choose_label_sets(images, [SHARP * 0.9] * 3, CRITERIA)) == 1


def test_kinds_with_labels_of_their_own_are_both_chosen() -> None:
    def two_kinds(seed: int) -> Maps:
        maps = image(seed)
        second = boxes((50, 40, 62, 56))
        return {clusters: np.where(second & (clusters > 1), clusters - 1, labels) for clusters, labels in maps.items()}

    images = [{clusters: labels.astype(np.uint8) for clusters, labels in two_kinds(seed).items()} for seed in range(4)]

    chosen = choose_label_sets(images, [SHARP] * len(images), CRITERIA)

    shown = np.maximum.reduce([one.regions(images[0][one.clusters], 0.4) > 0 for one in chosen])
    np.testing.assert_array_equal(shown, images[0][4] > 0)


def test_plain_images_have_no_parts() -> None:
    plain = {clusters: np.zeros((SIDE, SIDE), dtype=np.uint8) for clusters in (2, 3, 4)}

    assert choose_label_sets([plain, plain], [SHARP, SHARP], CRITERIA) == ()


def test_heaps_are_cut_and_single_parts_are_not() -> None:
    single = [(10 * row + 4, 14 * column + 4, 10 * row + 10, 14 * column + 10) for row in range(5) for column in (0, 3)]
    heap = [(10 * row + 4, 24, 10 * row + 10, 30) for row in range(5)]
    bridges = [(10 * row + 10, 26, 10 * row + 14, 28) for row in range(4)]

    def maps(*places: tuple[int, int, int, int]) -> Maps:
        # In an image of 128 x 128 pixels, these parts are as small as those of heaps.
        return {clusters: np.pad(boxes(*places), SIDE // 2).astype(np.uint8) for clusters in (2, 3, 4, 5)}

    sharp = np.ones((2 * SIDE, 2 * SIDE), dtype=np.float32)
    (apart,) = choose_label_sets([maps(*single)], [sharp], CRITERIA)
    (heaped,) = choose_label_sets([maps(*single, *heap, *bridges)], [sharp], CRITERIA)

    assert apart.neck == 0.0
    assert heaped.neck == 0.5
    assert heaped.regions(maps(*heap, *bridges)[2], 0.4).max() == 5


def test_large_regions_with_a_waist_are_not_cut() -> None:
    places = [(10 * row + 4, 24, 10 * row + 10, 30) for row in range(5)]
    single = [(10 * row + 4, 14 * column + 4, 10 * row + 10, 14 * column + 10) for row in range(5) for column in (0, 3)]
    bridges = [(10 * row + 10, 26, 10 * row + 14, 28) for row in range(4)]
    maps = {clusters: boxes(*places, *single, *bridges).astype(np.uint8) for clusters in (2, 3, 4, 5)}

    (chosen,) = choose_label_sets([maps], [SHARP], CRITERIA)

    assert chosen.neck == 0.0


def test_persistence_by_hand() -> None:
    # Region 0 of clustering 2; regions 1 and 2 of clustering 3; region 3 of clustering 4.
    overlaps = np.eye(4, dtype=np.float32)
    for one, other, value in ((0, 1, 0.9), (0, 2, 0.3), (0, 3, 0.6), (1, 3, 0.5)):
        overlaps[one, other] = overlaps[other, one] = value

    found = persistence_of(overlaps, np.array([2, 3, 3, 4]))

    np.testing.assert_allclose(found, [0.6, 0.5, 0.0, 0.5], rtol=1e-6)


def test_edge_agreement_by_hand() -> None:
    regions = np.zeros((6, 8), dtype=np.uint16)
    regions[1:5, 1:5] = 1
    regions[2:4, 6:8] = 2
    edges = np.arange(48, dtype=np.float32).reshape(6, 8) / 48

    found = edge_agreement(regions, edges)

    border = (regions == 1) & ~((np.indices((6, 8)) >= 2) & (np.indices((6, 8)) <= 3)).all(axis=0)
    # The last column of the second region lies on the frame: only three sides count, which are all of its pixels.
    np.testing.assert_allclose(found, [edges[border].mean(), edges[regions == 2].mean()])


@given(st.integers(0, 10_000), st.integers(1, 20))
def test_objects_are_distinct_and_explain_all_worthy_regions(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    overlaps = rng.random((count, count)).astype(np.float32)
    overlaps = np.maximum(overlaps, overlaps.T)
    np.fill_diagonal(overlaps, 1.0)
    worth = rng.random(count)

    found = distinct_objects(overlaps, worth, 0.4)

    between = overlaps[np.ix_(found, found)]
    assert (between[~np.eye(len(found), dtype=bool)] <= 0.5).all()
    for region in np.flatnonzero(worth >= 0.4):
        explained = found[overlaps[found, region] > 0.5]
        assert region in found or worth[explained].max() >= worth[region]


def test_mask_of_labels() -> None:
    label_map = np.array([[0, 1], [2, 1]], dtype=np.uint8)

    assert LabelSet(3, (0, 2), 0.01).mask(label_map).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("neck", [0.0, 0.5])
def test_regions_have_the_limits_of_the_set(neck: float) -> None:
    label_map = boxes((4, 4, 24, 24), (40, 40, 42, 42)).astype(np.uint8)

    found = LabelSet(2, (1,), 0.01, neck).regions(label_map, 0.4)

    np.testing.assert_array_equal(found > 0, boxes((4, 4, 24, 24)))
    assert LabelSet(2, (1,), 0.01, neck).regions(label_map, 0.05).max() == 0
