"""TF-IDF vectors of texts, learned from the texts of normal images."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.feature_extraction.text import TfidfVectorizer

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.text.sentences import sentences

_HASHED_TERMS: Final = 256


class TfidfEncoderConfig(StrictModel):
    """Options of TF-IDF.

    Attributes:
        text: Field with the texts.
        terms: Unit of the terms: whole `sentences`, for texts of fixed form, or n-grams of `words`.
        longest_run: Maximum n of the n-grams; unused with `sentences`.
        max_terms: Maximum number of learned terms; the most frequent ones are kept.
        max_texts: Maximum number of normal texts to learn from, sampled evenly.
        seed: Seed of the sample.
    """

    text: str = "description/text"
    terms: Literal["words", "sentences"] = "sentences"
    longest_run: int = Field(default=3, ge=1, le=5)
    max_terms: int = Field(default=2048, ge=1, le=65_536)
    max_texts: int = Field(default=20_000, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class TfidfEncoder:
    """TF-IDF learned from the texts of normal images, with extra dimensions for unseen terms.

    An unseen term is hashed into one of 256 extra dimensions, with the weight of a term that occurs in no normal text.
    Without them, unseen terms would not change the vector, and a text with new facts would look normal.

    Provides `{name}/embedding`: float32, shape (N, T + 256, 1, 1) for T terms, unit length; 0 for a text without terms.
    """

    config_model: ClassVar[type[TfidfEncoderConfig]] = TfidfEncoderConfig

    def __init__(self, name: str, config: TfidfEncoderConfig, device: str) -> None:
        """Creates an unfitted encoder."""
        self.name = name
        self.config = config
        self.needs = frozenset({config.text})
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        self._vectorizer = (
            TfidfVectorizer(analyzer=sentences, max_features=config.max_terms)
            if config.terms == "sentences"
            else TfidfVectorizer(
                token_pattern=r"\w+",  # noqa: S106
                ngram_range=(1, config.longest_run),
                max_features=config.max_terms,
            )
        )
        self._terms_of: Callable[[str], list[str]] = self._vectorizer.build_analyzer()
        self._columns: dict[str, int] = {}
        self._idf = np.zeros(0)

    @classmethod
    def fields_of(cls, name: str, config: TfidfEncoderConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/embedding"})

    def fit(self, stream: PerceptionStream) -> None:
        """Learns terms and their weights in one pass, independent of the order and batching of the images.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: No text has a term.
        """
        sample: ImageSample[str] = ImageSample(self.config.max_texts, self.config.seed)
        for perception in stream():
            for row_key, text in zip(perception.row_keys, perception.texts[self.config.text], strict=True):
                sample.add(row_key, text)
        texts = list(sample.items().values())
        try:
            self._vectorizer.fit(texts)
        except ValueError as error:
            raise FitError(
                f"{self.name}: no normal image has words in {self.config.text}; add images or check the describer"
            ) from error
        idf_of_new_term = 1.0 + np.log(1 + len(texts))
        self._keep(self._vectorizer.get_feature_names_out().tolist(), np.append(self._vectorizer.idf_, idf_of_new_term))

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Encodes one text per image; see the class for shapes.

        Raises:
            FitError: The encoder is not fitted.
        """
        self._require_fitted()
        vectors = np.stack([self._encode(text) for text in perception.texts[self.config.text]])
        return {f"{self.name}/embedding": torch.from_numpy(vectors)[:, :, None, None].to(self._device)}

    def state(self) -> State:
        """The terms and their weights, the last one for unseen terms: `idf`, float64, shape (T + 1,).

        Raises:
            FitError: The encoder is not fitted.
        """
        self._require_fitted()
        return State(arrays={"idf": self._idf}, document={"terms": list(self._columns)})

    def restore(self, state: State) -> None:
        """Restores the state of an encoder with the same configuration.

        Raises:
            BundleError: The state has no terms, or another number of weights.
        """
        idf, terms = state.arrays.get("idf"), state.document.get("terms")
        if idf is None or not isinstance(terms, list) or not terms or idf.shape != (len(terms) + 1,):
            raise BundleError(f"{self.name}: the bundle has no TF-IDF terms; fit the category again")
        self._keep(terms, idf)

    def lineage(self) -> dict[str, Any]:
        """All options that affect the vectors."""
        return self.config.model_dump(mode="json")

    def _keep(self, terms: list[str], idf: np.ndarray) -> None:
        self._columns = {term: column for column, term in enumerate(terms)}
        self._idf = np.asarray(idf, dtype=np.float64)

    def _require_fitted(self) -> None:
        if not self._columns:
            raise FitError(f"{self.name}: the encoder is not fitted; fit it or load a bundle first")

    def _encode(self, text: str) -> np.ndarray:
        learned = len(self._columns)
        vector = np.zeros(learned + _HASHED_TERMS)
        for term, count in Counter(self._terms_of(text)).items():
            column = self._columns.get(term, learned)
            place = column if column < learned else learned + zlib.crc32(term.encode()) % _HASHED_TERMS
            vector[place] += count * self._idf[column]
        length = np.linalg.norm(vector)
        return (vector / length if length else vector).astype(np.float32)
