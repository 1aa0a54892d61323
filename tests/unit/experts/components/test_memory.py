from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save
from sklearn.covariance import LedoitWolf

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.components.features import ComponentFeatureConfig, component_features
from uniad_ray.experts.components.memory import ComponentMemory, ComponentMemoryConfig
from uniad_ray.perception.base import Perception, State

NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(20)]
COLOURS = np.array([[90, 90, 90], [200, 40, 40], [40, 40, 200]], dtype=np.uint8)
SIDE, MAP, CLUSTERS = 64, 16, 4


def labels_of(key: str, damage: str = "") -> np.ndarray:
    """A background (0), two squares (1) and a bar (2), varied by the key; component 3 is always absent."""
    row, column, more = np.random.default_rng(int.from_bytes(key.encode(), "little")).integers(0, 3, size=3)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    labels[8 + row : 20 + row, 8:20] = 1
    if damage != "missing square":
        labels[8 + row : 20 + row, 36:48] = 1
    if damage == "third square":
        labels[24:36, 24:36] = 1
    if damage != "missing bar":
        labels[48:54, 8 + column : (56 if damage != "short bar" else 30) + column + more] = 2
    return labels


def extract(keys: Sequence[str], damage: str = "", side: int = SIDE) -> Perception:
    labels = np.stack([labels_of(key, damage)[:side, :side] for key in keys])
    images = COLOURS[labels]
    if damage == "recoloured bar":
        images[labels == 2] = COLOURS[1]
    fields = {
        "parts/labels": torch.from_numpy(labels)[:, None],
        "parts/similarity": torch.zeros(len(keys), CLUSTERS, 8, 8),
    }
    return Perception(keys, images, fields)


def stream_of(keys: Sequence[str], batch: int = 6) -> Callable[[], Iterator[Perception]]:
    return lambda: (extract(keys[start : start + batch]) for start in range(0, len(keys), batch))


def config_of(**options: Any) -> ComponentMemoryConfig:
    return ComponentMemoryConfig.model_validate({"components": "parts", "map_size": MAP, **options})


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 6, **options: Any) -> ComponentMemory:
    expert = ComponentMemory("logical_teacher", config_of(**options))
    expert.fit(stream_of(keys, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> ComponentMemory:
    return fitted()


def features_of(keys: Sequence[str], damage: str = "") -> np.ndarray:
    batch = extract(keys, damage)
    labels = batch.fields["parts/labels"][:, 0].numpy()
    pairs = zip(labels, batch.images, strict=True)
    return np.stack([component_features(one, image, CLUSTERS, ComponentFeatureConfig()) for one, image in pairs])


def test_fulfils_the_expert_interface(expert: ComponentMemory) -> None:
    evidence = expert.score(extract(["a", "b"]))

    assert isinstance(expert, Expert)
    assert expert.needs == {"parts/labels", "parts/similarity"}
    assert evidence.scores.shape == (2,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (2, MAP, MAP)
    assert evidence.maps.dtype == np.float32
    assert evidence.reasons == [[], []]


def test_nearest_is_the_mean_distance_to_neighbours() -> None:
    normal_images, query = features_of(NORMAL_IMAGES), features_of(["q"], "short bar")[0]
    scale = np.maximum(normal_images.std(axis=0), ComponentFeatureConfig().smallest_changes(CLUSTERS))
    slow = sorted(float(np.linalg.norm((query - normal) / scale)) for normal in normal_images)

    expert = fitted(distance="nearest", neighbours=3)

    assert expert.score(extract(["q"], "short bar")).scores[0] == pytest.approx(np.mean(slow[:3]), rel=1e-5)
    (nearest,) = expert.nearest_normal_images(query[None])
    assert float(np.linalg.norm((query - normal_images[nearest[0]]) / scale)) == pytest.approx(slow[0])


def test_mahalanobis_uses_the_shrunk_covariance() -> None:
    normal_images, query = features_of(NORMAL_IMAGES), features_of(["q"], "short bar")[0]
    scale = np.maximum(normal_images.std(axis=0), ComponentFeatureConfig().smallest_changes(CLUSTERS))
    covariance = LedoitWolf().fit(normal_images / scale).covariance_
    for feature in range(len(covariance)):
        covariance[feature, feature] = max(covariance[feature, feature], 1.0)
    difference = (query - normal_images.mean(axis=0)) / scale
    slow = float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))

    scores = fitted(distance="mahalanobis").score(extract(["q"], "short bar")).scores

    assert scores[0] == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("distance", ["nearest", "mahalanobis"])
@pytest.mark.parametrize("standardise", ["plain", "robust"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            "missing square",
            "component 1: area 50 % below the nearest normal images; 1 piece, 2 in the nearest normal images",
        ),
        (
            "third square",
            "component 1: area 50 % above the nearest normal images; 3 pieces, 2 in the nearest normal images",
        ),
        ("missing bar", "component 2: missing, but present in the nearest normal images"),
        ("recoloured bar", "component 2: colour "),
        ("short bar", "component 2: area "),
    ],
)
def test_finds_and_explains_damage(distance: str, standardise: str, damage: str, reason: str) -> None:
    expert = fitted(distance=distance, standardise=standardise)
    normal = expert.score(extract([f"fresh-{number}" for number in range(8)]))

    evidence = expert.score(extract(["x"], damage))

    assert evidence.scores[0] > 1.5 * normal.scores.max()
    assert any(reason in sentence for sentence in evidence.reasons[0])
    assert all(sentence.startswith("logical teacher: component ") for sentence in evidence.reasons[0])
    assert len(evidence.reasons[0]) <= 3


@pytest.mark.parametrize("distance", ["nearest", "mahalanobis"])
def test_map_is_highest_on_the_deviating_component(distance: str) -> None:
    evidence = fitted(distance=distance).score(extract(["x"], "recoloured bar"))

    assert evidence.maps is not None
    assert evidence.maps[0].max() == pytest.approx(evidence.scores[0])
    on_bar = labels_of("x")[2::4, 2::4] == 2
    assert evidence.maps[0][on_bar].min() > 3 * evidence.maps[0][~on_bar].max()


def test_missing_component_is_painted_at_its_usual_place(expert: ComponentMemory) -> None:
    evidence = expert.score(extract(["x"], "missing bar"))

    assert evidence.maps is not None
    always_bar = np.all([labels_of(key)[2::4, 2::4] == 2 for key in NORMAL_IMAGES], axis=0)
    np.testing.assert_allclose(evidence.maps[0][always_bar], evidence.scores[0], rtol=1e-5)
    assert evidence.maps[0][:10].max() < 0.5 * evidence.scores[0]


@settings(max_examples=10, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 20))
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int) -> None:
    one, other = fitted().state(), fitted(keys, batch).state()

    assert other.document == one.document
    assert all(other.arrays[name].tobytes() == array.tobytes() for name, array in one.arrays.items())


def test_score_does_not_depend_on_the_batch(expert: ComponentMemory) -> None:
    keys = [f"test-{number}" for number in range(7)]
    alone = [expert.score(extract([key], "short bar")) for key in keys]

    together = expert.score(extract(keys, "short bar"))

    assert together.maps is not None
    for index, single in enumerate(alone):
        assert single.maps is not None
        assert together.scores[index] == single.scores[0]
        assert np.array_equal(together.maps[index], single.maps[0])
        assert together.reasons[index] == single.reasons[0]


@pytest.mark.parametrize("distance", ["nearest", "mahalanobis"])
def test_scores_survive_a_round_trip(distance: str) -> None:
    expert = fitted(distance=distance)
    state = expert.state()

    restored = ComponentMemory.from_state(
        "logical_teacher", config_of(distance=distance), State(load(save(dict(state.arrays))), state.document)
    )

    batch = extract(["a", "b"], "third square")
    before, after = expert.score(batch), restored.score(batch)
    assert np.array_equal(before.scores, after.scores)
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(before.maps, after.maps)
    assert before.reasons == after.reasons


def test_bank_image_is_nearest_to_itself() -> None:
    assert fitted(distance="nearest", neighbours=1).score(extract(NORMAL_IMAGES[:3])).scores.tolist() == [0.0, 0.0, 0.0]


def test_bank_is_bounded_by_memory_size() -> None:
    state = fitted(memory_size=7).state()

    assert len(state.document["row_keys"]) == len(state.arrays["features"]) == 7
    assert state.arrays["occupancy"].sum(axis=0) == pytest.approx(1.0)


def test_two_images_are_enough_and_one_is_not() -> None:
    assert np.isfinite(fitted(NORMAL_IMAGES[:2]).score(extract(["a"])).scores).all()
    for keys in ([], NORMAL_IMAGES[:1]):
        with pytest.raises(FitError, match=r"logical_teacher: .* at least 2 are needed"):
            fitted(keys)


@pytest.mark.parametrize("distance", ["nearest", "mahalanobis"])
def test_fit_on_copies_still_finds_another_image(distance: str) -> None:
    same = extract(["same"])
    expert = ComponentMemory("logical_teacher", config_of(distance=distance))
    expert.fit(lambda: [Perception([f"copy-{number}"], same.images, same.fields) for number in range(4)])

    assert expert.score(same).scores[0] == pytest.approx(0.0, abs=1e-6)
    assert expert.score(extract(["same"], "missing square")).scores[0] > 3.0


@pytest.mark.parametrize("label", [0, 3])
def test_black_image_scores_high_and_finite(expert: ComponentMemory, label: int) -> None:
    black = extract(["black"])
    fields = {**black.fields, "parts/labels": torch.full_like(black.fields["parts/labels"], label)}

    evidence = expert.score(Perception(black.row_keys, np.zeros_like(black.images), fields))

    assert evidence.maps is not None
    assert np.isfinite(evidence.maps).all()
    assert np.isfinite(evidence.scores[0])
    assert evidence.scores[0] > 3.0


def test_non_finite_image_scores_nan_alone(expert: ComponentMemory) -> None:
    batch = extract(["a", "b"])
    batch.fields["parts/similarity"][0, 0, 0, 0] = float("nan")

    scores = expert.score(batch).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(extract(["b"])).scores[0]


def test_image_size_must_match_the_fit(expert: ComponentMemory) -> None:
    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(extract(["small"], side=32))
    with pytest.raises(FitError, match=r"small.*same size"):
        ComponentMemory("e", config_of()).fit(lambda: [extract(["a"]), extract(["small"], side=32)])


def test_unfitted_expert_has_no_score_or_state() -> None:
    expert = ComponentMemory("logical_teacher", config_of())

    with pytest.raises(FitError, match="not fitted"):
        expert.score(extract(["a"]))
    with pytest.raises(FitError, match="not fitted"):
        expert.state()


def test_state_must_match_the_configuration(expert: ComponentMemory) -> None:
    state = expert.state()
    others = [
        (config_of(), State()),
        (config_of(), State(state.arrays, {"row_keys": state.document["row_keys"]})),
        (config_of(), State({k: v for k, v in state.arrays.items() if k != "precision"}, state.document)),
        (config_of(map_size=8), state),
        (config_of(features={"groups": ("area",)}), state),
    ]
    for config, damaged in others:
        with pytest.raises(BundleError, match=r"no (bank of component features|component memory)"):
            ComponentMemory.from_state("logical_teacher", config, damaged)


@pytest.mark.parametrize("options", [{"distance": "l1"}, {"neighbours": 0}, {"memory_size": 1}, {"compnents": "x"}])
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config_of(**options)
