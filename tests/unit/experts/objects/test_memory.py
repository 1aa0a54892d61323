from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.objects.memory import ObjectMemory, ObjectMemoryConfig
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segments import Segments

SIDE = 16
MASKS = np.zeros((2, SIDE, SIDE), dtype=bool)
MASKS[0, 1:9, 1:9] = True
MASKS[1, 6:12, 6:12] = True


def config(**changes: Any) -> ObjectMemoryConfig:
    options = {"segments": "o/segments", "vectors": "o/vectors", "map_size": SIDE, "smoothing": 0.0}
    return ObjectMemoryConfig.model_validate(options | changes)


def memory(**changes: Any) -> ObjectMemory:
    return ObjectMemory("objects", config(**changes))


def perception(*images: list[list[float]], names: tuple[str, ...] = (), first: int = 0) -> Perception:
    segments = [Segments.of(MASKS[: len(vectors)]) for vectors in images]
    return Perception(
        [f"{first + number:032x}" for number in range(len(images))],
        np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8),
        segments={"o/segments": [each.named(names) if names else each for each in segments]},
        vectors={"o/vectors": [np.array(vectors, dtype=np.float32).reshape(-1, 2) for vectors in images]},
    )


def fitted(**changes: Any) -> ObjectMemory:
    expert = memory(**changes)
    expert.fit(lambda: [perception([[1, 0], [0, 2]], [[3, 0]]), perception([[0, 1]], first=2)])
    return expert


def test_map_is_one_minus_the_largest_cosine() -> None:
    evidence = fitted().score(perception([[5.0, 0.0], [3.0, 4.0]]))

    assert evidence.maps is not None
    # Eq. 3 by hand: cosines of (3, 4) to (1, 0) and (0, 1) are 0.6 and 0.8.
    np.testing.assert_allclose(evidence.maps[0], 0.2 * MASKS[1], atol=1e-6)
    np.testing.assert_allclose(evidence.scores, [0.2], atol=1e-6)


def test_overlapping_objects_use_sum_or_maximum() -> None:
    odd = perception([[-1.0, -1.0], [3.0, 4.0]])
    greatest = 1 + np.sqrt(0.5)
    both = MASKS[0] & MASKS[1]

    summed, largest = (fitted(overlap=overlap).score(odd).maps for overlap in ("sum", "maximum"))

    assert summed is not None
    assert largest is not None
    np.testing.assert_allclose(summed[0], greatest * MASKS[0] + 0.2 * MASKS[1], atol=1e-6)
    np.testing.assert_allclose(largest[0][both], greatest, atol=1e-6)


def test_farthest_objects_are_named() -> None:
    evidence = fitted().score(perception([[5.0, 0.0], [3.0, 4.0]], names=("bolt", "nut")))

    assert evidence.reasons[0] == [
        "nut at row 0.56, column 0.56 is 0.200 from the most similar normal object",
        "bolt at row 0.31, column 0.31 is 0.000 from the most similar normal object",
    ]


def test_image_without_objects_scores_zero() -> None:
    evidence = fitted().score(perception([]))

    assert evidence.scores.tolist() == [0.0]
    assert evidence.reasons == [[]]


def test_bank_is_clustered_on_the_unit_sphere() -> None:
    rng = np.random.default_rng(0)
    vectors = [[[float(np.cos(angle)), float(np.sin(angle))]] for angle in rng.normal([0.0] * 20 + [2.0] * 20, 0.05)]
    expert = memory(memory_size=2)
    expert.fit(lambda: [perception(*vectors)])

    bank = expert.state().arrays["bank"]
    assert bank.shape == (2, 2)
    np.testing.assert_allclose(np.sort(np.arctan2(bank[:, 1], bank[:, 0])), [0.0, 2.0], atol=0.05)


def test_order_of_images_has_no_effect() -> None:
    rng = np.random.default_rng(1)
    batches = [perception(rng.random((2, 2)).tolist(), first=number) for number in range(30)]
    one, other = memory(memory_size=5, candidates=40), memory(memory_size=5, candidates=40)
    one.fit(lambda: batches)
    other.fit(lambda: reversed(batches))

    np.testing.assert_array_equal(one.state().arrays["bank"], other.state().arrays["bank"])


@pytest.mark.parametrize("index", ["flat", "pq"])
@pytest.mark.parametrize("parts", [1, 2, 7, 30])
def test_samples_of_parts_give_the_same_bank(parts: int, index: str) -> None:
    rng = np.random.default_rng(1)
    batches = [perception(rng.random((2, 2)).tolist(), first=number) for number in range(30)]
    options: dict[str, Any] = {"memory_size": 35, "candidates": 40, "index": {"kind": index}}
    whole, merged = memory(**options), memory(**options)
    whole.fit(lambda: batches)

    samples = [merged.sample(lambda part=part: batches[part::parts]) for part in range(parts)]
    merged.fit_samples(reversed(samples))

    assert {name: array.tobytes() for name, array in merged.state().arrays.items()} == {
        name: array.tobytes() for name, array in whole.state().arrays.items()
    }
    assert ("codes" in whole.state().arrays) == (index == "pq")


def test_restored_memory_gives_the_same_evidence() -> None:
    expert = fitted()
    again = ObjectMemory.from_state("objects", config(), expert.state())
    odd = perception([[1.0, 2.0], [3.0, 4.0]], [])

    np.testing.assert_array_equal(expert.score(odd).scores, again.score(odd).scores)
    np.testing.assert_array_equal(expert.score(odd).maps, again.score(odd).maps)  # type: ignore[arg-type]


def test_non_finite_vector_is_refused_or_scores_nan() -> None:
    with pytest.raises(FitError, match=r"0{32} has features that are not finite"):
        memory().fit(lambda: [perception([[float("nan"), 0.0]])])
    assert np.isnan(fitted().score(perception([[float("nan"), 0.0]])).scores[0])


def test_vector_length_must_match_the_fit() -> None:
    with pytest.raises(BundleError, match="vectors of length 3, but the image of length 2"):
        ObjectMemory.from_state("objects", config(), State(arrays={"bank": np.ones((1, 3), np.float32)})).score(
            perception([[1.0, 0.0]])
        )


def test_any_object_is_unknown_if_normal_images_have_none() -> None:
    expert = memory()
    expert.fit(lambda: [perception([], [])])
    restored = ObjectMemory.from_state("objects", config(), expert.state())

    for one in (expert, restored):
        evidence = one.score(perception([], [[5.0, 0.0]]))
        assert evidence.scores.tolist() == [0.0, 1.0]
        assert evidence.maps is not None
        np.testing.assert_array_equal(evidence.maps[1], MASKS[0])


def test_missing_fits_and_banks_are_errors() -> None:
    with pytest.raises(FitError, match="not fitted"):
        memory().score(perception([]))
    with pytest.raises(BundleError, match="no memory bank"):
        ObjectMemory.from_state("objects", config(), State())
