from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save
from support.normal_fields import DAMAGED_CELL, NORMAL_IMAGES, extract, stream_of

from uniad_ray.errors import BundleError, ConfigError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.patch_features import as_vectors
from uniad_ray.experts.shared.structural_features import structural_features
from uniad_ray.experts.structural.discriminator import StructuralDiscriminator, StructuralDiscriminatorConfig
from uniad_ray.experts.structural.network import NormalityFunction
from uniad_ray.perception.base import State

TEACHER = ("pyramid/level1", "pyramid/level2")
STUDENT = ("student/level1", "student/level2")
SHAPES = {TEACHER[0]: (6, 8, 8), TEACHER[1]: (10, 4, 4)}
BOTH = {**SHAPES, STUDENT[0]: (6, 8, 8), STUDENT[1]: (10, 4, 4)}


def config(**options: Any) -> StructuralDiscriminatorConfig:
    quick = {
        "fields": TEACHER,
        "hidden": 32,
        "batch_vectors": 256,
        "noise": 0.5,
        "epochs": 10,
        "learning_rate": 2e-3,
        "map_size": 16,
    }
    return StructuralDiscriminatorConfig.model_validate({**quick, **options})


def unfitted(**options: Any) -> StructuralDiscriminator:
    return StructuralDiscriminator("structural_teacher", config(**options))


def fitted(
    keys: Sequence[str] = NORMAL_IMAGES,
    batch: int = 5,
    shapes: dict[str, tuple[int, int, int]] = SHAPES,
    **options: Any,
) -> StructuralDiscriminator:
    expert = unfitted(**options)
    expert.fit(stream_of(keys, shapes, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> StructuralDiscriminator:
    return fitted()


pytestmark = pytest.mark.usefixtures("one_thread")


def test_fulfils_the_expert_interface(expert: StructuralDiscriminator) -> None:
    evidence = expert.score(extract(["a", "b", "c"], SHAPES))

    assert isinstance(expert, Expert)
    assert expert.needs == set(TEACHER)
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (3, 16, 16)
    assert evidence.maps.dtype == np.float32
    assert [len(one) for one in evidence.reasons] == [1, 1, 1]


def test_finds_the_damaged_image_and_place(expert: StructuralDiscriminator) -> None:
    evidence = expert.score(extract(["u", "v", "w"], SHAPES, damaged=["v"]))

    assert evidence.maps is not None
    assert evidence.scores[1] > max(evidence.scores[0], evidence.scores[2]) + 1.0
    row, column = np.unravel_index(evidence.maps[1].argmax(), (16, 16))
    # The window of 3 x 3 cells around the damage, two map pixels per cell.
    assert abs(row - 2 * DAMAGED_CELL[0] - 0.5) <= 2.5
    assert abs(column - 2 * DAMAGED_CELL[1] - 0.5) <= 2.5
    assert evidence.reasons[1][0].startswith("structural teacher: strongest at row 0.")


def test_map_is_the_negative_normality(expert: StructuralDiscriminator) -> None:
    perception = extract(["q"], SHAPES)
    vectors = as_vectors(structural_features(perception.fields, TEACHER)[0])
    minus_normality = -NormalityFunction(expert.state().arrays)(vectors).numpy().reshape(1, 8, 8)

    evidence = expert.score(perception)

    assert evidence.maps is not None
    np.testing.assert_allclose(evidence.maps, anomaly_maps(minus_normality, 16, 1.0), rtol=1e-5, atol=1e-6)
    assert evidence.scores[0] == evidence.maps.max()


@settings(max_examples=8, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 24), st.sampled_from([100_000, 300]))
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int, most: int) -> None:
    one, other = (
        fitted(order, size, max_vectors=most, epochs=2) for order, size in ((NORMAL_IMAGES, 5), (keys, batch))
    )

    for name, array in one.state().arrays.items():
        assert array.tobytes() == other.state().arrays[name].tobytes()


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 11))
def test_score_does_not_depend_on_the_batch(expert: StructuralDiscriminator, batch: int) -> None:
    keys = [f"test-{number}" for number in range(11)]
    alone = [expert.score(extract([key], SHAPES)) for key in keys]

    for start in range(0, 11, batch):
        together = expert.score(extract(keys[start : start + batch], SHAPES))
        assert together.maps is not None
        for offset, single in enumerate(alone[start : start + batch]):
            assert single.maps is not None
            assert together.scores[offset] == single.scores[0]
            assert np.array_equal(together.maps[offset], single.maps[0])


def test_discriminator_can_be_trained_on_the_student() -> None:
    teacher, student = (fitted(shapes=BOTH, fields=fields, training_fields=STUDENT) for fields in (TEACHER, STUDENT))
    own = fitted(shapes=BOTH, fields=TEACHER)

    assert teacher.needs == set(BOTH)
    assert student.needs == set(STUDENT)
    for name, array in student.state().arrays.items():
        assert array.tobytes() == teacher.state().arrays[name].tobytes()
        assert array.tobytes() != own.state().arrays[name].tobytes()
    perception = extract(["q"], BOTH)
    assert teacher.score(perception).scores[0] != student.score(perception).scores[0]


def test_training_fields_must_have_equal_channels() -> None:
    with pytest.raises(FitError, match=r"fields have 16 channels but training_fields 10; use the same levels"):
        fitted(shapes=BOTH, fields=TEACHER, training_fields=STUDENT[1:])


def test_channels_are_limited() -> None:
    assert fitted(channels=8).state().arrays["hidden_weight"].shape == (32, 8)
    assert fitted(channels=99).state().arrays["hidden_weight"].shape == (32, 16)


def test_scores_survive_a_round_trip(expert: StructuralDiscriminator) -> None:
    state = expert.state()

    restored = StructuralDiscriminator.from_state(
        "structural_teacher", config(), State(load(save(dict(state.arrays))), state.document)
    )

    batch = extract(["a", "b"], SHAPES, damaged=["b"])
    before, after = expert.score(batch), restored.score(batch)
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.maps, before.maps)


def test_no_images_cannot_be_fitted() -> None:
    with pytest.raises(FitError, match="no normal images"):
        fitted(keys=[])


def test_non_finite_features_name_the_image() -> None:
    perception = extract(["good", "spoilt"], SHAPES)
    perception.fields[TEACHER[1]][1, 0, 2, 2] = float("inf")

    with pytest.raises(FitError, match=r"structural_teacher: image spoilt.*not finite"):
        unfitted().fit(lambda: [perception])


def test_non_finite_image_scores_nan_alone(expert: StructuralDiscriminator) -> None:
    perception = extract(["a", "b"], SHAPES)
    perception.fields[TEACHER[1]][0, 0, 0, 0] = float("nan")

    scores = expert.score(perception).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(extract(["b"], SHAPES)).scores[0]


def test_shapes_must_not_change(expert: StructuralDiscriminator) -> None:
    wide = extract(["wide"], {**SHAPES, TEACHER[0]: (6, 8, 12)})

    with pytest.raises(FitError, match=r"wide.*same size"):
        unfitted().fit(lambda: [extract(["a"], SHAPES), wide])
    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(wide)


def test_incomplete_state_is_an_error(expert: StructuralDiscriminator) -> None:
    state = expert.state()
    for damaged in (State(), State(state.arrays, {}), State({}, state.document)):
        with pytest.raises(BundleError, match="has no discriminator"):
            StructuralDiscriminator.from_state("structural_teacher", config(), damaged)


def test_unfitted_expert_has_no_score_or_state() -> None:
    with pytest.raises(FitError, match="not fitted"):
        unfitted().score(extract(["a"], SHAPES))
    with pytest.raises(FitError, match="not fitted"):
        unfitted().state()


@pytest.mark.parametrize("options", [{"fields": ()}, {"training_fields": ()}, {"neighbourhood": 2}, {"channels": 0}])
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StructuralDiscriminatorConfig.model_validate(options)


def test_teacher_takes_over_what_the_student_has_learned() -> None:
    teacher, student, other = (
        StructuralDiscriminator(name, config(fields=fields, training_fields=STUDENT, epochs=2, seed=seed))
        for name, fields, seed in (("teacher", TEACHER, 0), ("student", STUDENT, 0), ("other", TEACHER, 1))
    )
    alone = StructuralDiscriminator("teacher", config(fields=TEACHER, training_fields=STUDENT, epochs=2))
    alone.fit(stream_of(NORMAL_IMAGES, BOTH, 5))
    student.fit(stream_of(NORMAL_IMAGES, BOTH, 5))

    assert teacher.learns_like(student)
    assert not other.learns_like(student)
    assert not unfitted(epochs=2).learns_like(student)
    teacher.fit_like(student, stream_of(NORMAL_IMAGES, BOTH, 5))

    found, expected = teacher.state(), alone.state()
    assert found.document == expected.document
    for name, array in expected.arrays.items():
        assert array.tobytes() == found.arrays[name].tobytes()


def test_half_precision_needs_cuda() -> None:
    with pytest.raises(ConfigError, match="structural_teacher: precision bfloat16 needs a cuda device, not cpu"):
        fitted(precision="bfloat16")
