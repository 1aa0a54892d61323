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
from uniad_ray.experts.components.bank import ComponentBank
from uniad_ray.experts.components.features import ComponentFeatureConfig, component_features
from uniad_ray.experts.text.similarity import TextSimilarity, TextSimilarityConfig
from uniad_ray.perception.base import Perception, State

EMBEDDING, TEXT = "text_embedding/embedding", "description/text"
LABELS, SIMILARITY = "teacher_components/labels", "teacher_components/similarity"
SIDE, CLUSTERS, DIMENSION = 16, 3, 6
NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(20)]


def image_of(key: str, odd: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Label map, image, unit text vector and text of one key; an odd one differs only in its text."""
    rng = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    labels[2 : 2 + int(rng.integers(2, 6)), 2:10] = 1
    labels[10:14, 2 : 2 + int(rng.integers(2, 12))] = 2
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    vector = np.ones(DIMENSION) + 0.1 * rng.normal(size=DIMENSION)
    text = f"Part 1 is there. Part 2 has size {labels[12].sum() // 2}."
    if key in odd:
        vector = -vector
        text = "Part 1 is absent. " + text
    return labels, picture, (vector / np.linalg.norm(vector)).astype(np.float32), text


def extract(keys: Sequence[str], odd: Sequence[str] = ()) -> Perception:
    labels, pictures, vectors, texts = zip(*(image_of(key, odd) for key in keys), strict=True)
    fields = {
        LABELS: torch.from_numpy(np.stack(labels))[:, None],
        SIMILARITY: torch.zeros(len(keys), CLUSTERS, 4, 4),
        EMBEDDING: torch.from_numpy(np.stack(vectors))[:, :, None, None],
    }
    return Perception(keys, np.stack(pictures), fields, {TEXT: texts})


def stream_of(keys: Sequence[str], batch: int) -> Iterator[Perception]:
    for start in range(0, len(keys), batch):
        yield extract(keys[start : start + batch])


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 6, **options: Any) -> TextSimilarity:
    expert = TextSimilarity("text", TextSimilarityConfig.model_validate(options))
    expert.fit(lambda: stream_of(keys, batch))
    return expert


def stored(expert: TextSimilarity) -> tuple[bytes, Any]:
    state = expert.state()
    return save(dict(state.arrays)), state.document


@pytest.fixture(scope="module")
def expert() -> TextSimilarity:
    return fitted()


def test_fulfils_the_expert_interface(expert: TextSimilarity) -> None:
    evidence = expert.score(extract(["a", "b", "c"]))

    assert isinstance(expert, Expert)
    assert expert.needs == {EMBEDDING, TEXT, LABELS, SIMILARITY}
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is None
    assert len(evidence.reasons) == 3


def test_needs_only_used_fields() -> None:
    assert TextSimilarity("text", TextSimilarityConfig(text=None)).needs == {EMBEDDING, LABELS, SIMILARITY}
    assert TextSimilarity("text", TextSimilarityConfig(neighbour_space="text")).needs == {EMBEDDING, TEXT}


@pytest.mark.parametrize("neighbours", [1, 5])
def test_score_uses_neighbours_in_components(neighbours: int) -> None:
    def features_of(key: str) -> np.ndarray:
        labels, picture, _, _ = image_of(key)
        return component_features(labels, picture, CLUSTERS, ComponentFeatureConfig())

    bank = ComponentBank.fit(
        NORMAL_IMAGES,
        np.stack([features_of(key) for key in NORMAL_IMAGES]),
        smallest_scale=ComponentFeatureConfig().smallest_changes(CLUSTERS),
    )
    _, nearest = bank.nearest(features_of("q")[None], neighbours)
    cosines = [float(image_of("q")[2] @ image_of(bank.row_keys[index])[2]) for index in nearest[0]]

    assert fitted(neighbours=neighbours).score(extract(["q"])).scores[0] == pytest.approx(
        1 - np.mean(cosines), abs=1e-6
    )


def test_score_uses_neighbours_in_texts() -> None:
    cosines = np.sort([float(image_of("q")[2] @ image_of(key)[2]) for key in NORMAL_IMAGES])

    score = fitted(neighbour_space="text", neighbours=3).score(extract(["q"])).scores[0]

    assert score == pytest.approx(1 - cosines[-3:].mean(), abs=1e-6)


def test_odd_text_scores_highest_with_a_reason(expert: TextSimilarity) -> None:
    evidence = expert.score(extract(["a", "b", "c"], odd=["b"]))

    assert evidence.scores.argmax() == 1
    assert evidence.scores[1] > 1.5
    assert evidence.reasons[1][0] == "text: part 1 is absent, unlike in the nearest normal images"
    assert not any("part 1" in reason for reason in (*evidence.reasons[0], *evidence.reasons[2]))


def test_reasons_are_the_three_rarest_sentences() -> None:
    texts = {"a": "Common. Rare. Shared.", "b": "Common. Shared.", "c": "Shared."}
    expert = TextSimilarity("text", TextSimilarityConfig(neighbour_space="text", neighbours=1))
    expert.fit(lambda: [described(texts, {"a": (1, 0), "b": (1, 0), "c": (0, 1)})])

    reasons = expert.score(described({"q": "Common. Shared. New. Rare. Newer. Newer."}, {"q": (0, 1)})).reasons[0]

    assert reasons == [f"text: {word}, unlike in the nearest normal images" for word in ("new", "newer", "rare")]


def described(texts: dict[str, str], vectors: dict[str, tuple[float, float]]) -> Perception:
    embedding = torch.tensor([vectors[key] for key in texts], dtype=torch.float32)[:, :, None, None]
    images = np.zeros((len(texts), 4, 4, 3), dtype=np.uint8)
    return Perception(list(texts), images, {EMBEDDING: embedding}, {TEXT: list(texts.values())})


def test_without_texts_there_are_no_reasons() -> None:
    assert fitted(text=None).score(extract(["a"], odd=["a"])).reasons == [[]]


def test_neighbours_are_limited_to_the_memory() -> None:
    keys = NORMAL_IMAGES[:3]
    cosines = [float(image_of("q")[2] @ image_of(key)[2]) for key in keys]

    assert fitted(keys).score(extract(["q"])).scores[0] == pytest.approx(1 - np.mean(cosines), abs=1e-6)


@pytest.mark.parametrize("keys", [[], NORMAL_IMAGES[:1]])
def test_fit_needs_two_normal_images(keys: list[str]) -> None:
    with pytest.raises(FitError, match=rf"text: there are {len(keys)} normal images but at least 2"):
        fitted(keys)


@settings(max_examples=10, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 20), st.sampled_from(["components", "text"]))
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int, space: str) -> None:
    options = {"neighbour_space": space, "memory_size": 9}

    assert stored(fitted(**options)) == stored(fitted(keys, batch, **options))


def test_memory_is_bounded() -> None:
    assert fitted(memory_size=4).state().arrays["embeddings"].shape == (4, DIMENSION)


@pytest.mark.parametrize("space", ["components", "text"])
def test_score_does_not_depend_on_the_batch(space: str) -> None:
    expert = fitted(neighbour_space=space)
    keys = [f"test-{number}" for number in range(7)]
    together = expert.score(extract(keys, odd=["test-3"]))

    for row, key in enumerate(keys):
        alone = expert.score(extract([key], odd=["test-3"]))
        assert alone.scores[0] == together.scores[row]
        assert alone.reasons[0] == together.reasons[row]


@pytest.mark.parametrize("options", [{}, {"neighbour_space": "text"}, {"text": None}])
def test_scores_survive_a_round_trip(options: dict[str, Any]) -> None:
    expert = fitted(**options)
    arrays, document = stored(expert)
    restored = TextSimilarity.from_state(
        "text", TextSimilarityConfig.model_validate(options), State(load(arrays), document)
    )

    before, after = (one.score(extract(["a", "b"], odd=["b"])) for one in (expert, restored))

    assert after.scores.tobytes() == before.scores.tobytes()
    assert after.reasons == before.reasons


def test_incomplete_state_is_an_error(expert: TextSimilarity) -> None:
    state = expert.state()
    config = TextSimilarityConfig()
    for arrays, document in (
        ({}, {}),
        ({**state.arrays, "embeddings": state.arrays["embeddings"][:-1]}, state.document),
        (state.arrays, {**state.document, "texts": state.document["texts"][:-1]}),
        ({"embeddings": state.arrays["embeddings"]}, state.document),
    ):
        with pytest.raises(BundleError, match="fit the category again"):
            TextSimilarity.from_state("text", config, State(arrays, document))


def test_unfitted_expert_has_no_score_or_state() -> None:
    expert = TextSimilarity("text", TextSimilarityConfig())

    with pytest.raises(FitError, match="not fitted"):
        expert.score(extract(["a"]))
    with pytest.raises(FitError, match="not fitted"):
        expert.state()


def test_vector_size_must_match_the_fit(expert: TextSimilarity) -> None:
    batch = extract(["a"])
    other = Perception(batch.row_keys, batch.images, {**batch.fields, EMBEDDING: torch.ones(1, 9, 1, 1)}, batch.texts)

    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(other)


def test_non_finite_vector_is_refused_or_scores_nan(
    expert: TextSimilarity,
) -> None:
    batch = extract(["good", "spoilt"])
    batch.fields[EMBEDDING][1, 2] = float("nan")

    with pytest.raises(FitError, match=r"spoilt.*not finite"):
        TextSimilarity("text", TextSimilarityConfig()).fit(lambda: [batch])
    scores = expert.score(batch).scores
    assert np.isnan(scores[1])
    assert scores[0] == expert.score(extract(["good"])).scores[0]


@pytest.mark.parametrize(
    "options", [{"neighbours": 0}, {"memory_size": 1}, {"neighbour_space": "pixels"}, {"neigbours": 5}]
)
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextSimilarityConfig.model_validate(options)
