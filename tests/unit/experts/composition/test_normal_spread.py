from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.composition.normal_spread import Changes, NormalSpread

CHANGES = np.array([0.1, 0.1])


def ratio_rows(count: int, seed: int = 0) -> np.ndarray:
    """Two amounts that vary, the second always twice the first."""
    first = np.random.default_rng(seed).uniform(1.0, 2.0, count)
    noise = np.random.default_rng(seed + 1).normal(0.0, 0.02, count)
    return np.stack([first, 2.0 * first + noise], axis=1)


def deviation(spread: NormalSpread, *row: float) -> float:
    return spread.deviation(spread.terms(np.array(row)))


def test_a_broken_ratio_is_unusual_and_a_kept_one_is_not() -> None:
    spread = NormalSpread.fit(ratio_rows(60), CHANGES)

    assert deviation(spread, 1.2, 2.4) < 2.0
    assert deviation(spread, 1.2, 3.6) > 6.0


def test_distance_equals_a_plain_reference() -> None:
    rows = ratio_rows(30)
    spread = NormalSpread.fit(rows, CHANGES)
    scaled = (np.array([1.9, 2.1]) - rows.mean(axis=0)) / rows.std(axis=0)

    assert spread.terms(np.array([1.9, 2.1])).sum() == pytest.approx(scaled @ spread.precision @ scaled / 2)


def test_normal_distances_come_from_images_that_were_left_out() -> None:
    rows = np.random.default_rng(3).normal(size=(12, 2))
    spread = NormalSpread.fit(rows, CHANGES)
    distances = []
    for fold in range(5):
        is_out = np.arange(12) % 5 == fold
        others = NormalSpread.fit(rows[~is_out], CHANGES)
        distances += [float(np.sqrt(others.terms(row).sum())) for row in rows[is_out]]

    np.testing.assert_allclose(spread.usual_distance, [np.mean(distances), np.std(distances)])


def test_small_changes_of_a_constant_measurement_are_normal() -> None:
    spread = NormalSpread.fit(np.ones((20, 2)), CHANGES)

    assert spread.terms(np.array([1.1, 1.0])).sum() == pytest.approx(0.5)


def independent_rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(40, 2))


def test_only_directions_that_anomalies_change_count() -> None:
    rows = independent_rows()
    changes = Changes(np.array([[3.0, 0.0], [-2.0, 0.0]]), np.array([0, 1]))
    plain, learned = NormalSpread.fit(rows, CHANGES), NormalSpread.fit(rows, CHANGES, changes)

    assert abs(deviation(plain, 0.0, 8.0) - deviation(plain, 8.0, 0.0)) < 2.0
    assert deviation(learned, 8.0, 0.0) > 5.0 * deviation(learned, 0.0, 8.0)


def test_distance_is_the_mean_squared_response_to_the_changes() -> None:
    rows = independent_rows()
    changes = np.array([[3.0, 1.0], [-2.0, 0.5], [0.1, 0.1]])
    learned = NormalSpread.fit(rows, CHANGES, Changes(changes, np.array([0, 1, 2])))
    scaled = (np.array([2.0, 1.0]) - learned.centre) / learned.scale
    responses = changes / learned.scale @ NormalSpread.fit(rows, CHANGES).precision @ scaled

    assert learned.terms(np.array([2.0, 1.0])).sum() == pytest.approx(np.mean(responses**2) / 2)


def test_changes_of_left_out_images_are_left_out() -> None:
    rows = independent_rows()
    owners = np.arange(40)
    values = np.random.default_rng(4).normal(size=(40, 2)) * np.array([3.0, 0.5])
    spread = NormalSpread.fit(rows, CHANGES, Changes(values, owners))
    distances = []
    for fold in range(5):
        is_out = np.arange(40) % 5 == fold
        others = NormalSpread.fit(rows[~is_out], CHANGES, Changes(values[~is_out], np.arange(32)))
        distances += [float(np.sqrt(others.terms(row).sum())) for row in rows[is_out]]

    np.testing.assert_allclose(spread.usual_distance, [np.mean(distances), np.std(distances)])


def test_no_changes_leave_the_plain_distance() -> None:
    none = Changes(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))

    assert deviation(NormalSpread.fit(ratio_rows(20), CHANGES, none), 1.9, 2.1) == deviation(
        NormalSpread.fit(ratio_rows(20), CHANGES), 1.9, 2.1
    )


def test_two_images_are_enough() -> None:
    spread = NormalSpread.fit(np.array([[1.0, 2.0], [1.5, 2.0]]), CHANGES)

    assert np.isfinite(deviation(spread, 9.0, 9.0))


def test_restored_spread_gives_the_same_distances() -> None:
    spread = NormalSpread.fit(ratio_rows(20), CHANGES)

    restored = NormalSpread.from_arrays(spread.arrays(), 2)

    assert deviation(restored, 1.9, 2.1) == deviation(spread, 1.9, 2.1)


@pytest.mark.parametrize("name", ["centre", "scale", "precision", "bounds", "usual_distance"])
def test_arrays_of_another_shape_are_refused(name: str) -> None:
    arrays = NormalSpread.fit(ratio_rows(20), CHANGES).arrays()

    with pytest.raises(BundleError, match="fit the category again"):
        NormalSpread.from_arrays({**arrays, name: arrays[name][..., :1]}, 2)
    with pytest.raises(BundleError, match="fit the category again"):
        NormalSpread.from_arrays({key: array for key, array in arrays.items() if key != name}, 2)
