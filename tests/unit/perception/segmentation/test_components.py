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

from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import LearnedExtractor, Perception, State
from uniad_ray.perception.segmentation.components import Components, ComponentsConfig

FIELDS = ("net/level2", "net/level3")
NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(12)]
COLOURS = np.array([[90, 90, 90], [200, 40, 40], [40, 40, 200]], dtype=np.uint8)
SIDE = 64


def true_labels(key: str) -> np.ndarray:
    """A ground (0) with a red square (1) and a blue bar (2), shifted a little by the key: uint8, shape (64, 64)."""
    row, column = np.random.default_rng(int.from_bytes(key.encode(), "little")).integers(0, 5, size=2)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    labels[8 + row : 26 + row, 6 + column : 24 + column] = 1
    labels[44 + row : 54 + row, 16 + column : 56 + column] = 2
    return labels


def extract(keys: Sequence[str]) -> Perception:
    """Images with the features of the component under each cell, plus noise."""
    directions = np.random.default_rng(3).normal(size=(3, 10)).astype(np.float32)
    labels = np.stack([true_labels(key) for key in keys])
    each: dict[str, list[torch.Tensor]] = {name: [] for name in FIELDS}
    for key, own in zip(keys, labels, strict=True):
        noise = np.random.default_rng(int.from_bytes(key.encode(), "little") + 1)
        for name, stride, channels in ((FIELDS[0], 4, slice(0, 4)), (FIELDS[1], 8, slice(4, 10))):
            grid = directions[own[stride // 2 :: stride, stride // 2 :: stride]][..., channels]
            field = grid + 0.1 * noise.normal(size=grid.shape)
            each[name].append(torch.from_numpy(field.astype(np.float32)).permute(2, 0, 1))
    return Perception(keys, COLOURS[labels], {name: torch.stack(fields) for name, fields in each.items()})


def stream_of(keys: Sequence[str], batch: int = 5) -> Callable[[], Iterator[Perception]]:
    return lambda: (extract(keys[start : start + batch]) for start in range(0, len(keys), batch))


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 5, **options: Any) -> Components:
    config = ComponentsConfig.model_validate({"fields": FIELDS, "clusters": 3, "candidates": 500, **options})
    components = Components("parts", config, "cpu")
    components.fit(stream_of(keys, batch))
    return components


@pytest.fixture(scope="module")
def components() -> Components:
    return fitted()


def test_keeps_the_contract(components: Components) -> None:
    produced = components.extract(extract(["a", "b"]))

    assert isinstance(components, LearnedExtractor)
    assert components.needs == set(FIELDS)
    assert produced.keys() == components.provides == {"parts/labels", "parts/similarity"}
    assert produced["parts/labels"].shape == (2, 1, SIDE, SIDE)
    assert produced["parts/labels"].dtype == torch.uint8
    assert produced["parts/similarity"].shape == (2, 3, 16, 16)
    assert produced["parts/similarity"].dtype == torch.float32
    assert not produced["parts/similarity"].is_inference()
    assert components.lineage()["clusters"] == 3


def test_finds_components_and_refinement_sharpens_them() -> None:
    truth = np.stack([true_labels(key) for key in ("a", "b")])
    # The bar covers more than the square, so it is component 1.
    truth = np.array([0, 2, 1])[truth]

    plain, refined = (
        float((fitted(crf=crf).extract(extract(["a", "b"]))["parts/labels"][:, 0].numpy() == truth).mean())
        for crf in (None, {})
    )

    assert plain > 0.94
    assert refined > plain + 0.02


def test_similarity_is_the_cosine_to_each_centre(components: Components) -> None:
    image = extract(["a"])
    similarity = components.extract(image)["parts/similarity"][0].numpy()
    coarse = image.fields[FIELDS[1]][0]
    upsampled = torch.nn.functional.interpolate(coarse[None], (16, 16), mode="bilinear", align_corners=False)[0]
    features = torch.cat([image.fields[FIELDS[0]][0], upsampled]).numpy()

    for label, centre in enumerate(components.state().arrays["centres"]):
        for row, column in ((0, 0), (3, 3), (12, 9)):
            vector = features[:, row, column]
            cosine = vector @ centre / (np.linalg.norm(vector) * np.linalg.norm(centre))
            assert similarity[label, row, column] == pytest.approx(cosine, abs=1e-5)


def test_unrefined_labels_have_the_highest_cosine() -> None:
    produced = fitted(crf=None).extract(extract(["a"]))

    similarity = torch.nn.functional.interpolate(
        produced["parts/similarity"], (SIDE, SIDE), mode="bilinear", align_corners=False
    )
    assert torch.equal(produced["parts/labels"][:, 0].long(), similarity.argmax(dim=1))


@settings(max_examples=10, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 12))
def test_centres_do_not_depend_on_order_or_batching(keys: list[str], batch: int) -> None:
    one, other = fitted(restarts=2), fitted(keys, batch, restarts=2)

    assert one.state().arrays["centres"].tobytes() == other.state().arrays["centres"].tobytes()


@pytest.mark.parametrize("crf", [None, {}])
def test_labels_do_not_depend_on_the_batch(crf: dict[str, Any] | None) -> None:
    components = fitted(crf=crf)
    keys = [f"test-{number}" for number in range(7)]
    alone = [components.extract(extract([key])) for key in keys]

    for batch in (2, 3, 7):
        for start in range(0, 7, batch):
            together = components.extract(extract(keys[start : start + batch]))
            for offset, single in enumerate(alone[start : start + batch]):
                for name in components.provides:
                    assert torch.equal(together[name][offset], single[name][0])


def test_thread_count_has_no_effect_and_is_restored() -> None:
    """Uses wide noisy fields: torch rounds their sums differently for other numbers of threads."""
    noise = np.random.default_rng(0)
    fields = {
        name: torch.from_numpy(noise.normal(size=(4, 120, side, side)).astype(np.float32))
        for name, side in zip(FIELDS, (32, 16), strict=True)
    }
    images = noise.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    perception = Perception(["a", "b", "c", "d"], images, fields)
    components = Components("part", ComponentsConfig(fields=FIELDS, restarts=1), "cpu")
    components.fit(lambda: [perception])
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(components.extract(perception))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for name, values in found[0].items():
            assert torch.equal(values, other[name])


def test_memory_layout_does_not_matter(components: Components) -> None:
    plain = extract(["a", "b"])
    fields = {name: field.contiguous(memory_format=torch.channels_last) for name, field in plain.fields.items()}

    produced = components.extract(plain)
    strided = components.extract(Perception(plain.row_keys, plain.images, fields))

    assert all(torch.equal(produced[name], strided[name]) for name in produced)


@pytest.mark.parametrize("clusters", [3, "auto"])
def test_labels_survive_a_round_trip(clusters: Any) -> None:
    components = fitted(clusters=clusters, cluster_range=(2, 4), restarts=2)
    state = components.state()
    restored = Components("parts", components.config, "cpu")
    restored.restore(State(load(save(dict(state.arrays))), state.document))

    before, after = components.extract(extract(["a"])), restored.extract(extract(["a"]))

    assert all(torch.equal(before[name], after[name]) for name in before)
    assert restored.state().document == state.document


def test_auto_selects_largest_reproducible_count() -> None:
    state = fitted(clusters="auto", cluster_range=(2, 8), restarts=3).state()

    chosen, agreement = len(state.arrays["centres"]), state.document["agreement"]
    assert set(agreement) == {"2", "3", "4", "5", "6", "7", "8"}
    assert agreement["3"] > 0.99
    assert 3 <= chosen < 8
    assert agreement[str(chosen)] >= 0.9 > max(agreement[str(more)] for more in range(chosen + 1, 9))


def test_candidates_limit_the_clustered_vectors() -> None:
    few, all_of_them = fitted(candidates=128), fitted(candidates=10**6)

    assert few.state().arrays["centres"].tobytes() != all_of_them.state().arrays["centres"].tobytes()


def test_uniform_images_get_labels(components: Components) -> None:
    plain = extract(["a", "b"])
    images = np.zeros_like(plain.images)
    images[1] = 255
    blank = {name: torch.zeros_like(field) for name, field in plain.fields.items()}

    for fields in (plain.fields, blank):
        produced = components.extract(Perception(plain.row_keys, images, fields))
        assert produced["parts/labels"].max() < 3
        assert torch.isfinite(produced["parts/similarity"]).all()


def test_non_finite_features_affect_only_their_image(components: Components) -> None:
    batch = extract(["spoilt", "b"])
    batch.fields[FIELDS[0]][0, 0, 1, 1] = float("nan")

    produced = components.extract(batch)

    assert not torch.isfinite(produced["parts/similarity"][0]).all()
    assert produced["parts/labels"].max() < 3
    alone = components.extract(extract(["b"]))
    assert all(torch.equal(produced[name][1], alone[name][0]) for name in alone)


def test_fit_needs_distinct_features() -> None:
    blank = extract(["a"])
    blank = Perception(blank.row_keys, blank.images, {name: field * 0.0 for name, field in blank.fields.items()})
    components = Components("parts", ComponentsConfig(fields=FIELDS), "cpu")

    with pytest.raises(FitError, match=r"parts: .* only 0 distinct feature vectors, at least 5"):
        components.fit(stream_of([]))
    with pytest.raises(FitError, match=r"parts: .* only 1 distinct feature vectors, at least 5"):
        components.fit(lambda: [blank])


def test_non_finite_features_name_the_image() -> None:
    perception = extract(["good", "spoilt"])
    perception.fields[FIELDS[1]][1, 0, 2, 2] = float("nan")

    with pytest.raises(FitError, match=r"spoilt.*not finite"):
        Components("parts", ComponentsConfig(fields=FIELDS), "cpu").fit(lambda: [perception])


def test_unfitted_components_raise() -> None:
    components = Components("parts", ComponentsConfig(fields=FIELDS), "cpu")

    with pytest.raises(FitError, match="not fitted"):
        components.extract(extract(["a"]))
    with pytest.raises(FitError, match="not fitted"):
        components.state()


def test_corrupt_state_is_rejected() -> None:
    components = Components("parts", ComponentsConfig(fields=FIELDS), "cpu")

    for state in (State(), State({"centres": np.zeros(3, dtype=np.float32)})):
        with pytest.raises(BundleError, match="no component centres"):
            components.restore(state)


@pytest.mark.parametrize(
    "options",
    [
        {"fields": ()},
        {"clusters": 1},
        {"clusters": 65},
        {"clusters": "many"},
        {"cluster_range": (5, 3)},
        {"cluster_range": (1, 3)},
        {"temperature": 0.0},
        {"crf": {"grid": 128}},
        {"clutsers": 5},
    ],
)
def test_invalid_options_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ComponentsConfig.model_validate({"fields": FIELDS, **options})
