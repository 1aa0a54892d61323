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
from sklearn.feature_extraction.text import TfidfVectorizer

from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import LearnedExtractor, Perception, State
from uniad_ray.perception.text.tfidf import TfidfEncoder, TfidfEncoderConfig

TEXTS = {
    f"image-{number}": text
    for number, text in enumerate(
        [
            "Part 1 is red. Part 2 has 3 pieces.",
            "Part 1 is red. Part 2 has 4 pieces.",
            "Part 1 is red or orange. Part 2 has 3 pieces. Part 2 has 3 pieces.",
            "Part 1 is orange.",
        ]
    )
}


def perception_of(texts: Sequence[str], keys: Sequence[str] | None = None) -> Perception:
    keys = [f"test-{number}" for number in range(len(texts))] if keys is None else keys
    images = np.zeros((len(texts), 4, 4, 3), dtype=np.uint8)
    return Perception(keys, images, texts={"description/text": texts})


def stream_of(keys: Sequence[str], batch: int) -> Iterator[Perception]:
    for start in range(0, len(keys), batch):
        part = keys[start : start + batch]
        yield perception_of([TEXTS[key] for key in part], part)


def fitted(keys: Sequence[str] = tuple(TEXTS), batch: int = 2, **options: Any) -> TfidfEncoder:
    encoder = TfidfEncoder("text_embedding", TfidfEncoderConfig.model_validate(options), "cpu")
    encoder.fit(lambda: stream_of(keys, batch))
    return encoder


def vectors(encoder: TfidfEncoder, *texts: str) -> np.ndarray:
    return encoder.extract(perception_of(texts))["text_embedding/embedding"].numpy()[:, :, 0, 0]


def test_keeps_the_contract() -> None:
    encoder = fitted()
    embedding = encoder.extract(perception_of(list(TEXTS.values())))["text_embedding/embedding"]

    assert isinstance(encoder, LearnedExtractor)
    assert encoder.needs == {"description/text"}
    assert encoder.provides == TfidfEncoder.fields_of("text_embedding", encoder.config) == {"text_embedding/embedding"}
    assert embedding.dtype == torch.float32
    assert embedding.shape[0] == 4
    assert embedding.shape[2:] == (1, 1)
    np.testing.assert_allclose(embedding.flatten(1).norm(dim=1).numpy(), 1.0, rtol=1e-6)


def test_known_words_match_scikit_learn() -> None:
    reference = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 3)).fit(TEXTS.values())  # noqa: S106
    expected = reference.transform(TEXTS.values()).toarray()

    computed = vectors(fitted(terms="words"), *TEXTS.values())

    np.testing.assert_allclose(computed[:, : expected.shape[1]], expected, rtol=1e-6)
    assert not computed[:, expected.shape[1] :].any()


def test_sentences_are_weighted_by_hand() -> None:
    encoder = fitted(terms="sentences")
    often, once = 1 + np.log(5 / 3), 1 + np.log(5 / 2)  # terms in two and in one of four texts, smoothed by one
    twice = np.array([once, 2 * often]) / np.hypot(once, 2 * often)

    vector = vectors(encoder, TEXTS["image-2"])[0]

    assert encoder.state().document["terms"] == [
        "part 1 is orange",
        "part 1 is red",
        "part 1 is red or orange",
        "part 2 has 3 pieces",
        "part 2 has 4 pieces",
    ]
    np.testing.assert_allclose(vector[[2, 3]], twice, rtol=1e-6)
    assert np.count_nonzero(vector) == 2


def test_unseen_terms_lower_the_cosine() -> None:
    usual, more, most = vectors(
        fitted(), "Part 1 is red.", "Part 1 is red. A scratch.", "Part 1 is red. A scratch. A dent."
    )

    assert usual @ usual > usual @ more > usual @ most > 0


def test_unseen_term_has_weight_of_absent_term() -> None:
    known, new = 1 + np.log(5 / 3), 1 + np.log(5)

    usual, both = vectors(fitted(terms="sentences"), "Part 1 is red.", "Part 1 is red. A scratch.")

    assert usual @ both == pytest.approx(known / np.hypot(known, new), rel=1e-6)


def test_equal_unseen_terms_give_equal_vectors() -> None:
    first, second, other = vectors(fitted(), "A scratch.", "A scratch.", "A dent.")

    assert first @ second == pytest.approx(1.0)
    assert first @ other == pytest.approx(0.0)


def test_text_without_terms_is_zero() -> None:
    assert not vectors(fitted(), "").any()


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(TEXTS)), st.integers(1, 4))
def test_terms_do_not_depend_on_order_or_batching(keys: list[str], batch: int) -> None:
    one, other = fitted(max_terms=3, max_texts=3).state(), fitted(keys, batch, max_terms=3, max_texts=3).state()

    assert one.document == other.document
    assert one.arrays["idf"].tobytes() == other.arrays["idf"].tobytes()


def test_terms_and_texts_are_bounded() -> None:
    assert len(fitted(terms="words", max_terms=7).state().document["terms"]) == 7
    assert len(fitted(max_texts=1).state().document["terms"]) < len(fitted().state().document["terms"])


@pytest.mark.parametrize("terms", ["words", "sentences"])
def test_vectors_survive_a_round_trip(terms: str) -> None:
    encoder = fitted(terms=terms)
    state = encoder.state()
    restored = TfidfEncoder("text_embedding", encoder.config, "cpu")
    restored.restore(State(load(save(dict(state.arrays))), state.document))
    texts = [*TEXTS.values(), "A scratch."]

    assert vectors(restored, *texts).tobytes() == vectors(encoder, *texts).tobytes()


def test_vectors_do_not_depend_on_the_batch() -> None:
    encoder = fitted()
    together = vectors(encoder, *TEXTS.values())

    for row, text in enumerate(TEXTS.values()):
        assert vectors(encoder, text).tobytes() == together[row : row + 1].tobytes()


@pytest.mark.parametrize("texts", [[], ["", " . "]])
def test_texts_without_words_cannot_be_fitted(texts: list[str]) -> None:
    encoder = TfidfEncoder("text_embedding", TfidfEncoderConfig(), "cpu")

    with pytest.raises(FitError, match=r"text_embedding: no normal image has words in description/text"):
        encoder.fit(lambda: [perception_of(texts)])


def test_unfitted_encoder_raises() -> None:
    encoder = TfidfEncoder("text_embedding", TfidfEncoderConfig(), "cpu")

    with pytest.raises(FitError, match="not fitted"):
        encoder.extract(perception_of(["a"]))
    with pytest.raises(FitError, match="not fitted"):
        encoder.state()


def test_corrupt_state_is_rejected() -> None:
    good = fitted().state()
    for state in (State(), State(good.arrays, {"terms": ["one"]}), State({}, good.document)):
        with pytest.raises(BundleError, match="no TF-IDF terms"):
            TfidfEncoder("text_embedding", TfidfEncoderConfig(), "cpu").restore(state)


@pytest.mark.parametrize("options", [{"max_terms": 0}, {"terms": "letters"}, {"longest_run": 0}, {"max_text": 5}])
def test_invalid_options_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TfidfEncoderConfig.model_validate(options)
