from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.patch.memory import PatchMemory, PatchMemoryConfig
from uniad_ray.experts.shared.anomaly_map import anomaly_maps
from uniad_ray.experts.shared.patch_features import as_vectors, patch_features
from uniad_ray.perception.base import Perception, State

LEVELS = ("pyramid/level2", "pyramid/level3")
NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(24)]
DAMAGE = 25.0


def features(key: str) -> dict[str, torch.Tensor]:
    """Fields of one image: a fixed layout with a little noise seeded by the key."""
    layout = np.random.default_rng(7)
    noise = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    shapes = {LEVELS[0]: (6, 8, 8), LEVELS[1]: (10, 4, 4)}
    return {
        name: torch.from_numpy((layout.normal(size=shape) + 0.2 * noise.normal(size=shape)).astype(np.float32))
        for name, shape in shapes.items()
    }


def extract(keys: Sequence[str], damaged: Sequence[int] = ()) -> Perception:
    """A batch; images at the positions `damaged` get one unusual cell at row 3, column 5 of level 2."""
    each = [features(key) for key in keys]
    for position in damaged:
        each[position][LEVELS[0]][:, 3, 5] += DAMAGE
    fields = {name: torch.stack([one[name] for one in each]) for name in LEVELS}
    return Perception(row_keys=keys, images=np.zeros((len(keys), 64, 64, 3), dtype=np.uint8), fields=fields)


def stream_of(keys: Sequence[str], batch: int) -> Iterator[Perception]:
    for start in range(0, len(keys), batch):
        yield extract(keys[start : start + batch])


def config(**options: Any) -> PatchMemoryConfig:
    return PatchMemoryConfig.model_validate({"memory_size": 200, "candidates": 900, "map_size": 16, **options})


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 5, **options: Any) -> PatchMemory:
    expert = PatchMemory("patch_memory", config(**options))
    expert.fit(lambda: stream_of(keys, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> PatchMemory:
    return fitted()


def test_fulfils_the_expert_interface(expert: PatchMemory) -> None:
    evidence = expert.score(extract(["a", "b", "c"]))

    assert isinstance(expert, Expert)
    assert expert.needs == set(LEVELS)
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (3, 16, 16)
    assert evidence.maps.dtype == np.float32
    assert [len(one) for one in evidence.reasons] == [1, 1, 1]


@pytest.mark.parametrize("selection", ["coreset", "kmeans", "all"])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_finds_the_damaged_image_and_place(selection: str, distance: str) -> None:
    expert = fitted(selection=selection, distance=distance)

    evidence = expert.score(extract(["u", "v", "w"], damaged=[1]))

    assert evidence.maps is not None
    assert evidence.scores[1] > 2 * max(evidence.scores[0], evidence.scores[2])
    row, column = np.unravel_index(evidence.maps[1].argmax(), (16, 16))
    assert row in (4, 5, 6, 7, 8, 9)  # the window of 3 x 3 cells around the damage, two map pixels per cell
    assert column in (8, 9, 10, 11, 12, 13)
    assert evidence.reasons[1][0].startswith("patch memory: strongest at row 0.")


def test_score_equals_a_plain_reference() -> None:
    options: dict[str, Any] = {"selection": "all", "candidates": 10**6, "storage": "float32", "smoothing": 1.0}
    bank = np.concatenate(
        [as_vectors(patch_features(stack(key), LEVELS)[0]).numpy().astype(np.float64) for key in NORMAL_IMAGES]
    )
    queries = as_vectors(patch_features(stack("q"), LEVELS)[0]).numpy().astype(np.float64)
    nearest = np.array([min(np.linalg.norm(query - one) for one in bank) for query in queries])
    smooth = anomaly_maps(nearest.reshape(1, 8, 8).astype(np.float32), 16, 1.0)

    raw = fitted(**options, score_smoothed=False).score(extract(["q"]))
    smoothed = fitted(**options, score_smoothed=True).score(extract(["q"]))
    top = fitted(**options, score_smoothed=False, image_score="top_mean", top_fraction=0.1).score(extract(["q"]))

    assert raw.scores[0] == pytest.approx(nearest.max(), rel=1e-5)
    assert smoothed.scores[0] == pytest.approx(smooth.max(), rel=1e-5)
    assert top.scores[0] == pytest.approx(np.sort(nearest)[-6:].mean(), rel=1e-5)
    assert raw.maps is not None
    np.testing.assert_allclose(raw.maps, smooth, rtol=1e-4)


def test_neighbours_are_averaged() -> None:
    options: dict[str, Any] = {"selection": "all", "candidates": 10**6, "score_smoothed": False, "smoothing": 0.0}

    nearest, three = (fitted(**options, neighbours=count).score(extract(["q"])) for count in (1, 3))

    assert three.scores[0] > nearest.scores[0] * 1.001


def test_cosine_clusters_on_the_unit_sphere() -> None:
    bank = fitted(selection="kmeans", distance="cosine", memory_size=20).state().arrays["bank"]

    np.testing.assert_allclose(np.linalg.norm(bank.astype(np.float32), axis=1), 1.0, atol=1e-3)


def stack(key: str) -> dict[str, torch.Tensor]:
    return {name: field[None] for name, field in features(key).items()}


def test_bank_image_scores_zero() -> None:
    expert = fitted(selection="all", candidates=10**6, storage="float32", smoothing=0.0)

    assert expert.score(extract(NORMAL_IMAGES[:2])).scores == pytest.approx([0.0, 0.0], abs=2e-3)


@settings(max_examples=10, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 24), st.sampled_from(["coreset", "kmeans"]))
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int, selection: str) -> None:
    one = fitted(NORMAL_IMAGES, 5, selection=selection)
    other = fitted(keys, batch, selection=selection)

    assert one.state().arrays["bank"].tobytes() == other.state().arrays["bank"].tobytes()


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=24, max_size=24),
    st.sampled_from(["coreset", "kmeans"]),
    st.sampled_from([{"kind": "pq"}, {"kind": "ivf", "lists": 30}]),
)
def test_samples_of_parts_give_the_same_bank(part_of: list[int], selection: str, index: dict[str, Any]) -> None:
    options: dict[str, Any] = {"selection": selection, "index": index}
    whole, merged = fitted(**options), fitted(keys=NORMAL_IMAGES[:1], **options)
    parts = [[key for key, part in zip(NORMAL_IMAGES, part_of, strict=True) if part == number] for number in range(7)]

    merged.fit_samples(merged.sample(lambda part=part: stream_of(part, 2)) for part in parts)

    assert {name: array.tobytes() for name, array in merged.state().arrays.items()} == {
        name: array.tobytes() for name, array in whole.state().arrays.items()
    }
    assert merged.state().document == whole.state().document
    assert len(whole.state().arrays) == 3


def test_parts_must_have_equal_shapes() -> None:
    expert = PatchMemory("patch_memory", PatchMemoryConfig())
    wide = extract(["wide"])
    wide = Perception(wide.row_keys, wide.images, {**wide.fields, LEVELS[0]: torch.zeros(1, 6, 8, 12)})

    with pytest.raises(FitError, match="same size"):
        expert.fit_samples([expert.sample(lambda: [extract(["a"])]), expert.sample(lambda: [wide])])


IVF: dict[str, Any] = {"kind": "ivf", "lists": 150, "probes": 1}


@pytest.mark.parametrize("index", [{"kind": "pq"}, IVF], ids=["pq", "ivf"])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_index_scores_as_the_flat_one(index: dict[str, Any], distance: str) -> None:
    batch = extract(["a", "b", "c"], damaged=[1])
    options: dict[str, Any] = {"selection": "all", "distance": distance, "score_smoothed": False}

    flat, other = (fitted(**options, index=one).score(batch) for one in ({"kind": "flat"}, index))

    np.testing.assert_allclose(other.scores, flat.scores, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"image_score": "top_mean", "top_fraction": 0.05}], ids=["max", "top_mean"])
def test_inverted_file_makes_only_the_score_exact(options: dict[str, Any]) -> None:
    options = {**options, "selection": "all", "score_smoothed": False, "smoothing": 0.0, "map_size": 8}
    batch = extract(["a", "b", "c", "d"], damaged=[1])

    flat, inverted = (fitted(**options, index=index).score(batch) for index in ({"kind": "flat"}, IVF))

    np.testing.assert_allclose(inverted.scores, flat.scores, rtol=1e-4)
    assert inverted.maps is not None
    assert flat.maps is not None
    assert (inverted.maps >= flat.maps * (1 - 1e-4)).all()
    assert (inverted.maps > flat.maps * 1.001).any()


@pytest.mark.parametrize("index", [{"kind": "pq"}, IVF], ids=["pq", "ivf"])
def test_index_round_trips_through_safetensors(index: dict[str, Any]) -> None:
    expert = fitted(index=index)
    state = expert.state()

    arrays = load(save({name: np.ascontiguousarray(array) for name, array in state.arrays.items()}))
    restored = PatchMemory.from_state("patch_memory", config(index=index), State(arrays, state.document))

    assert len(arrays) == 3
    batch = extract(["a", "b"], damaged=[1])
    before, after = expert.score(batch), restored.score(batch)
    assert np.array_equal(after.scores, before.scores)
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.maps, before.maps)


ENCODERS = {"cnn/level2": (6, 8, 8), "cnn/level3": (10, 4, 4), "vit/block5": (12, 7, 7), "vit/block11": (12, 7, 7)}


def extract_encoders(keys: Sequence[str], odd: str | None = None) -> Perception:
    """CNN levels, and transformer tokens that are 100 times as large; `odd` is changed at its centre."""
    fields = {}
    for name, (channels, height, width) in ENCODERS.items():
        layout = np.random.default_rng(len(name)).normal(size=(channels, height, width))
        noise = [
            np.random.default_rng(int.from_bytes(key.encode(), "little")).normal(size=layout.shape) for key in keys
        ]
        field = layout + 0.1 * np.stack(noise)
        if name == odd:
            field[0, :, height // 2, width // 2] *= -1
        fields[name] = torch.from_numpy((field * (100 if name.startswith("vit") else 1)).astype(np.float32))
    return Perception(keys, np.zeros((len(keys), 64, 64, 3), dtype=np.uint8), fields)


def fitted_on_encoders(**options: Any) -> PatchMemory:
    settings = {"fields": tuple(ENCODERS), "neighbourhood": 1, "map_size": 8, "smoothing": 0.0, **options}
    expert = PatchMemory("patch_memory", PatchMemoryConfig.model_validate(settings))
    expert.fit(lambda: [extract_encoders(NORMAL_IMAGES)])
    return expert


@pytest.mark.parametrize("odd", list(ENCODERS))
@pytest.mark.parametrize("index", ["flat", "pq"])
def test_every_encoder_contributes(odd: str, index: str) -> None:
    expert = fitted_on_encoders(normalise_fields=True, distance="cosine", index={"kind": index})

    evidence = expert.score(extract_encoders(["odd", "even"], odd))

    assert expert.state().arrays["bank"].shape[1] == 40
    assert evidence.maps is not None
    assert evidence.scores[0] > 3 * evidence.scores[1]
    row, column = np.unravel_index(evidence.maps[0].argmax(), (8, 8))
    assert 3 <= row <= 5
    assert 3 <= column <= 5


def test_cosine_is_the_mean_over_encoders() -> None:
    # TMUAD, eq. 4 without pooling, on one common grid.
    names = ("vit/block5", "vit/block11")
    expert = fitted_on_encoders(
        fields=names, normalise_fields=True, distance="cosine", selection="all", storage="float32", map_size=7
    )
    bank, query = extract_encoders(NORMAL_IMAGES).fields, extract_encoders(["q"]).fields
    unit = {
        name: [
            torch.nn.functional.normalize(each[name], dim=1).permute(0, 2, 3, 1).reshape(-1, 12)
            for each in (bank, query)
        ]
        for name in names
    }
    cosines = sum(unit[name][1] @ unit[name][0].T for name in names) / len(names)
    expected = (1 - cosines.max(dim=1).values).reshape(7, 7)

    evidence = expert.score(extract_encoders(["q"]))

    assert evidence.maps is not None
    np.testing.assert_allclose(evidence.maps[0], expected, atol=1e-5)


def test_size_mismatch_names_both_shapes() -> None:
    query = extract_encoders(["q"])
    query.fields["vit/block5"] = torch.zeros(1, 12, 14, 14)  # type: ignore[index]

    with pytest.raises(
        BundleError, match=r"\(12, 7, 7\).*but the image has .*\(12, 14, 14\).*image size of the bundle"
    ):
        fitted_on_encoders().score(query)


def test_another_seed_gives_another_bank(expert: PatchMemory) -> None:
    assert expert.state().arrays["bank"].tobytes() != fitted(seed=1).state().arrays["bank"].tobytes()


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 11), st.sampled_from([{"kind": "flat"}, IVF]))
def test_score_does_not_depend_on_the_batch(batch: int, index: dict[str, Any]) -> None:
    expert = fitted(index=index)
    keys = [f"test-{number}" for number in range(11)]
    alone = [expert.score(extract([key], damaged=[0] if key == "test-3" else [])) for key in keys]

    for start in range(0, 11, batch):
        group = keys[start : start + batch]
        damaged = [group.index("test-3")] if "test-3" in group else []
        together = expert.score(extract(group, damaged))
        for offset, single in enumerate(alone[start : start + batch]):
            assert together.scores[offset] == single.scores[0]
            assert together.maps is not None
            assert single.maps is not None
            assert np.array_equal(together.maps[offset], single.maps[0])


def test_memory_layout_of_fields_has_no_effect(expert: PatchMemory) -> None:
    plain = extract(["a", "b"])
    fields = {name: field.contiguous(memory_format=torch.channels_last) for name, field in plain.fields.items()}
    strided = Perception(row_keys=plain.row_keys, images=plain.images, fields=fields)

    assert np.array_equal(expert.score(plain).scores, expert.score(strided).scores)


@pytest.mark.parametrize("storage", ["float16", "float32"])
@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_scores_survive_a_round_trip(storage: str, distance: str) -> None:
    expert = fitted(storage=storage, distance=distance)
    state = expert.state()
    arrays = load(save(dict(state.arrays)))

    restored = PatchMemory.from_state(
        "patch_memory", config(storage=storage, distance=distance), State(arrays, state.document)
    )

    assert arrays["bank"].dtype == np.dtype(storage)
    batch = extract(["a", "b"], damaged=[1])
    before, after = expert.score(batch), restored.score(batch)
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.maps, before.maps)


def test_half_precision_barely_changes_scores() -> None:
    batch = extract([f"t{number}" for number in range(8)])

    half, full = fitted(storage="float16").score(batch), fitted(storage="float32").score(batch)

    np.testing.assert_allclose(half.scores, full.scores, rtol=2e-3)


def test_state_is_bounded_by_memory_size() -> None:
    assert fitted(memory_size=50).state().arrays["bank"].shape == (50, 16)
    assert fitted(selection="all", candidates=77).state().arrays["bank"].shape == (77, 16)


def test_no_images_cannot_be_fitted() -> None:
    with pytest.raises(FitError, match="no normal images"):
        fitted(keys=[])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_name_the_image(bad: float) -> None:
    perception = extract(["good", "spoilt"])
    perception.fields[LEVELS[1]][1, 0, 2, 2] = bad

    with pytest.raises(FitError, match=r"spoilt.*not finite"):
        PatchMemory("patch_memory", PatchMemoryConfig()).fit(lambda: [perception])


def test_features_beyond_half_precision_are_refused() -> None:
    perception = extract(["bright"])
    perception.fields[LEVELS[0]][:] = 1e6

    with pytest.raises(FitError, match=r"bright.*float32"):
        PatchMemory("patch_memory", PatchMemoryConfig()).fit(lambda: [perception])
    PatchMemory("patch_memory", PatchMemoryConfig(storage="float32")).fit(lambda: [perception])


def test_shape_change_in_the_stream_is_an_error() -> None:
    wide = extract(["wide"])
    wide = Perception(wide.row_keys, wide.images, {**wide.fields, LEVELS[0]: torch.zeros(1, 6, 8, 12)})

    with pytest.raises(FitError, match=r"wide.*same size"):
        PatchMemory("patch_memory", PatchMemoryConfig()).fit(lambda: [extract(["a"]), wide])


def test_shape_must_match_the_fit(expert: PatchMemory) -> None:
    wide = extract(["wide"])
    wide = Perception(wide.row_keys, wide.images, {**wide.fields, LEVELS[0]: torch.zeros(1, 6, 8, 12)})

    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(wide)


def test_incomplete_state_is_an_error(expert: PatchMemory) -> None:
    document = expert.state().document
    for state in (State(), State({"bank": np.zeros((0, 4))}, document), State({"bank": np.zeros((2, 4))}, {})):
        with pytest.raises(BundleError, match="fit the category again"):
            PatchMemory.from_state("patch_memory", PatchMemoryConfig(), state)


def test_unfitted_expert_has_no_score_or_state() -> None:
    expert = PatchMemory("patch_memory", PatchMemoryConfig())

    with pytest.raises(FitError, match="not fitted"):
        expert.score(extract(["a"]))
    with pytest.raises(FitError, match="not fitted"):
        expert.state()


def test_non_finite_image_scores_nan_alone(expert: PatchMemory) -> None:
    perception = extract(["a", "b"])
    perception.fields[LEVELS[1]][0, 0, 0, 0] = float("nan")

    scores = expert.score(perception).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(extract(["b"])).scores[0]


def test_smaller_grid_has_fewer_patches() -> None:
    expert = fitted(grid=4, selection="all", candidates=10**6)

    assert len(expert.state().arrays["bank"]) == len(NORMAL_IMAGES) * 16
    assert expert.score(extract(["a"])).scores.shape == (1,)


@pytest.mark.parametrize(
    "options", [{"neighbourhood": 2}, {"fields": ()}, {"memory_size": 0}, {"distance": "l1"}, {"memroy_size": 5}]
)
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PatchMemoryConfig.model_validate(options)
