from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save
from support.normal_fields import DAMAGED_CELL, NORMAL_IMAGES, extract, stream_of

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.structural.discrepancy import Discrepancy, DiscrepancyConfig, feature_distance
from uniad_ray.perception.base import Perception, State

TEACHER = ("pyramid/level1", "pyramid/level2")
STUDENT = ("student/level1", "student/level2")
SHAPES = {TEACHER[0]: (6, 8, 8), TEACHER[1]: (10, 4, 4), STUDENT[0]: (6, 8, 8), STUDENT[1]: (10, 4, 4)}
WAYS = [("none", "product"), ("none", "mean"), ("level", "mean"), ("cell", "mean")]


def config(**options: Any) -> DiscrepancyConfig:
    return DiscrepancyConfig.model_validate({"teacher": TEACHER, "student": STUDENT, "map_size": 16, **options})


def unfitted(**options: Any) -> Discrepancy:
    return Discrepancy("discrepancy", config(**options))


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 5, **options: Any) -> Discrepancy:
    expert = unfitted(**options)
    expert.fit(stream_of(keys, SHAPES, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> Discrepancy:
    return fitted(normalisation="cell")


def distance_slowly(teacher: np.ndarray, student: np.ndarray, distance: str) -> np.ndarray:
    """Distance of two fields of shape (C, h, w), float64, cell by cell."""
    _, height, width = teacher.shape
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            one, other = teacher[:, row, column], student[:, row, column]
            if distance == "cosine":
                product = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
                out[row, column] = 1 - product / np.sqrt(np.sum(np.square(one)) * np.sum(np.square(other)))
            else:
                out[row, column] = sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True)) / len(one)
    return out


def distances_slowly(perception: Perception, image: int, distance: str) -> list[np.ndarray]:
    return [
        distance_slowly(*(perception.fields[name][image].numpy().astype(np.float64) for name in pair), distance)
        for pair in zip(TEACHER, STUDENT, strict=True)
    ]


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_distance_is_computed_per_cell(distance: Any) -> None:
    perception = extract(["a", "b"], SHAPES)

    found = feature_distance(perception.fields[TEACHER[1]], perception.fields[STUDENT[1]], distance)

    assert found.shape == (2, 4, 4)
    for image in (0, 1):
        expected = distances_slowly(perception, image, distance)[1]
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_equal_fields_have_no_distance() -> None:
    field = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))

    assert float(feature_distance(field, field, "cosine").max()) == 0.0
    assert float(feature_distance(field, field, "squared").max()) == 0.0
    assert float(feature_distance(field, 3 * field, "cosine").max()) < 1e-6


@pytest.mark.parametrize(("normalisation", "combination"), WAYS)
@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_score_equals_a_plain_reference(normalisation: str, combination: str, distance: str) -> None:
    expert = fitted(normalisation=normalisation, combination=combination, distance=distance)
    normal = [distances_slowly(extract([key], SHAPES), 0, distance) for key in NORMAL_IMAGES]
    query = extract(["q"], SHAPES)
    maps = []
    for level, grid in enumerate(distances_slowly(query, 0, distance)):
        of_normal_images = np.stack([one[level] for one in normal])
        if normalisation == "level":
            grid = (grid - of_normal_images.mean()) / of_normal_images.std()
        elif normalisation == "cell":
            grid = (grid - of_normal_images.mean(axis=0)) / of_normal_images.std(axis=0)
        maps.append(anomaly_maps(grid[None].astype(np.float32), 16, 0.0)[0])
    combined = maps[0] * maps[1] if combination == "product" else (maps[0] + maps[1]) / 2
    expected = anomaly_maps(combined[None], 16, 1.0)

    evidence = expert.score(query)

    assert evidence.maps is not None
    np.testing.assert_allclose(evidence.maps, expected, rtol=1e-3, atol=1e-4)
    assert evidence.scores[0] == evidence.maps.max()


@pytest.mark.parametrize(("normalisation", "combination"), WAYS)
def test_finds_the_damaged_image_and_place(normalisation: str, combination: str) -> None:
    expert = fitted(normalisation=normalisation, combination=combination, distance="squared")

    evidence = expert.score(extract(["u", "v", "w"], SHAPES, damaged=["v"]))

    assert evidence.maps is not None
    assert evidence.scores[1] > 2 * max(evidence.scores[0], evidence.scores[2])
    row, column = np.unravel_index(evidence.maps[1].argmax(), (16, 16))
    # Two map pixels per cell.
    assert abs(row - 2 * DAMAGED_CELL[0] - 0.5) <= 1.5
    assert abs(column - 2 * DAMAGED_CELL[1] - 0.5) <= 1.5


def test_fulfils_the_expert_interface(expert: Discrepancy) -> None:
    evidence = expert.score(extract(["a", "b", "c"], SHAPES))

    assert isinstance(expert, Expert)
    assert expert.needs == set(SHAPES)
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (3, 16, 16)
    assert evidence.maps.dtype == np.float32
    assert evidence.reasons[0][0].startswith("discrepancy: strongest at row 0.")


@settings(max_examples=8, deadline=None)
@given(
    st.permutations(NORMAL_IMAGES), st.integers(1, 24), st.sampled_from([1000, 7]), st.sampled_from(["level", "cell"])
)
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int, most: int, normalisation: str) -> None:
    one, other = (
        fitted(order, size, max_images=most, normalisation=normalisation)
        for order, size in ((NORMAL_IMAGES, 5), (keys, batch))
    )

    for name, array in one.state().arrays.items():
        assert array.tobytes() == other.state().arrays[name].tobytes()


def test_number_of_images_is_limited() -> None:
    few, all_of_them = (fitted(max_images=most, normalisation="level") for most in (3, 1000))

    assert few.state().arrays["mean/pyramid/level1"] != all_of_them.state().arrays["mean/pyramid/level1"]


def test_state_holds_mean_and_deviation(expert: Discrepancy) -> None:
    shapes = {name: array.shape for name, array in expert.state().arrays.items()}

    assert shapes == {
        "mean/pyramid/level1": (8, 8),
        "mean/pyramid/level2": (4, 4),
        "deviation/pyramid/level1": (8, 8),
        "deviation/pyramid/level2": (4, 4),
    }
    assert {array.shape for array in fitted(normalisation="level").state().arrays.values()} == {(1, 1)}


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 11))
def test_score_does_not_depend_on_the_batch(expert: Discrepancy, batch: int) -> None:
    keys = [f"test-{number}" for number in range(11)]
    alone = [expert.score(extract([key], SHAPES)) for key in keys]

    for start in range(0, 11, batch):
        together = expert.score(extract(keys[start : start + batch], SHAPES))
        assert together.maps is not None
        for offset, single in enumerate(alone[start : start + batch]):
            assert single.maps is not None
            assert together.scores[offset] == single.scores[0]
            assert np.array_equal(together.maps[offset], single.maps[0])


@pytest.mark.parametrize("normalisation", ["none", "level", "cell"])
def test_scores_survive_a_round_trip(normalisation: str) -> None:
    expert = fitted(normalisation=normalisation)
    state = expert.state()

    restored = Discrepancy.from_state(
        "discrepancy", config(normalisation=normalisation), State(load(save(dict(state.arrays))), state.document)
    )

    batch = extract(["a", "b"], SHAPES, damaged=["b"])
    before, after = expert.score(batch), restored.score(batch)
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.maps, before.maps)


def test_constant_cells_give_finite_scores() -> None:
    same = extract(NORMAL_IMAGES[:3], SHAPES)
    for teacher, student in zip(TEACHER, STUDENT, strict=True):
        same.fields[student].copy_(same.fields[teacher])
    expert = unfitted(normalisation="cell")
    expert.fit(lambda: [same])

    assert bool(np.isfinite(expert.score(extract(["a"], SHAPES)).scores).all())


def test_no_images_cannot_be_fitted() -> None:
    with pytest.raises(FitError, match="no normal images"):
        fitted(keys=[])


def test_non_finite_features_name_the_image() -> None:
    perception = extract(["good", "spoilt"], SHAPES)
    perception.fields[STUDENT[0]][1, 0, 2, 2] = float("nan")

    with pytest.raises(FitError, match=r"discrepancy: image spoilt.*not finite"):
        unfitted().fit(lambda: [perception])


def test_non_finite_image_scores_nan_alone(expert: Discrepancy) -> None:
    perception = extract(["a", "b"], SHAPES)
    perception.fields[STUDENT[1]][0, 0, 0, 0] = float("inf")

    scores = expert.score(perception).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(extract(["b"], SHAPES)).scores[0]


def test_paired_fields_must_have_equal_shapes() -> None:
    shapes = {**SHAPES, STUDENT[1]: (10, 2, 2)}

    with pytest.raises(FitError, match=r"student/level2 has shape \(10, 2, 2\) but pyramid/level2 \(10, 4, 4\)"):
        unfitted().fit(stream_of(["a"], shapes))


def test_shapes_must_not_change(expert: Discrepancy) -> None:
    wide = extract(["wide"], {**SHAPES, TEACHER[0]: (6, 8, 12), STUDENT[0]: (6, 8, 12)})

    with pytest.raises(FitError, match=r"wide.*same size"):
        unfitted().fit(lambda: [extract(["a"], SHAPES), wide])
    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(wide)


def test_incomplete_state_is_an_error(expert: Discrepancy) -> None:
    state = expert.state()
    for damaged in (State(), State(state.arrays, {}), State({}, state.document)):
        with pytest.raises(BundleError, match="no discrepancies of normal images"):
            Discrepancy.from_state("discrepancy", config(normalisation="cell"), damaged)


def test_unfitted_expert_has_no_score_or_state() -> None:
    with pytest.raises(FitError, match="not fitted"):
        unfitted().score(extract(["a"], SHAPES))
    with pytest.raises(FitError, match="not fitted"):
        unfitted().state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": STUDENT[:1]}, "the same number of fields"),
        ({"combination": "product", "normalisation": "cell"}, "normalisation none"),
        ({"distance": "l1"}, "distance"),
        ({"teacher": (), "student": ()}, "teacher"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiscrepancyConfig.model_validate({"teacher": TEACHER, "student": STUDENT, **options})
