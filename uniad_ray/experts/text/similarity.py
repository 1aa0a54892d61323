"""The text similarity: compares an image's text with those of similar normal images (UniAD, section 3.4)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.experts.components.bank import ComponentBank, Standardise
from uniad_ray.experts.components.features import ComponentFeatureConfig, component_features
from uniad_ray.experts.shared.field_checks import FieldShapes, require_finite
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.text.sentences import sentences

_FEWEST_IMAGES = 2
_MOST_REASONS = 3


class TextSimilarityConfig(StrictModel):
    """Options of the text similarity.

    Attributes:
        embedding: Field of text vectors.
        text: Field of the texts, for the reasons; None gives no reasons.
        neighbour_space: Space for the search of the nearest normal images: `components` (the paper), or `text`, the
            text vectors, which needs no components.
        components: Name of the extractor whose label maps find the nearest normal images; unused with `text`.
        features: Features of a component; unused with `text`.
        standardise: Scaling of component features, see `ComponentBank.fit`; unused with `text`.
        neighbours: Number of normal images to compare with.
        memory_size: Maximum number of normal images to keep, sampled evenly.
        seed: Seed of the sample.
    """

    embedding: str = "text_embedding/embedding"
    text: str | None = "description/text"
    neighbour_space: Literal["components", "text"] = "components"
    components: str = "teacher_components"
    features: ComponentFeatureConfig = ComponentFeatureConfig()
    standardise: Standardise = "plain"
    neighbours: int = Field(default=5, ge=1, le=100)
    memory_size: int = Field(default=2000, ge=2, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class _Described(NamedTuple):
    """Data of one image: its text vector, and, if used, its text and its component features."""

    embedding: np.ndarray
    text: str
    features: np.ndarray


class TextSimilarity:
    """One minus the mean cosine between an image's text vector and those of its nearest normal images (eq. 12-13).

    Each image is processed alone. The expert gives no map.
    """

    config_model: ClassVar[type[TextSimilarityConfig]] = TextSimilarityConfig

    def __init__(self, name: str, config: TextSimilarityConfig) -> None:
        """Creates an unfitted expert."""
        self.name = name
        self._labels = f"{config.components}/labels"
        self._similarity = f"{config.components}/similarity"
        self._by_components = config.neighbour_space == "components"
        self._tensors = [config.embedding, *([self._labels, self._similarity] if self._by_components else [])]
        self.needs = frozenset(self._tensors if config.text is None else [*self._tensors, config.text])
        self._config = config
        self._shapes = FieldShapes(name, self._tensors)
        self._embeddings = np.zeros((0, 0), dtype=np.float32)
        self._texts: list[str] = []
        self._bank: ComponentBank | None = None
        self._said: list[frozenset[str]] = []
        self._times_said: Counter[str] = Counter()

    def fit(self, stream: PerceptionStream) -> None:
        """Stores normal images in one pass; order and batching of the images have no effect.

        Args:
            stream: The normal perceptions.

        Raises:
            FitError: There are fewer than two images, a text vector is not finite, or the shape of a field changes.
        """
        shapes = FieldShapes(self.name, self._tensors)
        sample: ImageSample[_Described] = ImageSample(self._config.memory_size, self._config.seed)
        for perception in stream():
            shapes.observe(perception)
            for row, row_key in enumerate(perception.row_keys):
                require_finite(self.name, row_key, perception.fields[self._config.embedding][row])
                sample.add(row_key, self._described(perception, row))
        known = sample.items()
        if len(known) < _FEWEST_IMAGES:
            raise FitError(
                f"{self.name}: there are {len(known)} normal images but at least {_FEWEST_IMAGES} are needed; "
                "add images to the category"
            )
        self._shapes = shapes
        self._keep(
            np.stack([image.embedding for image in known.values()]),
            [image.text for image in known.values()],
            ComponentBank.fit(
                list(known),
                np.stack([image.features for image in known.values()]),
                self._config.standardise,
                self._config.features.smallest_changes(shapes[self._similarity][0]),
            )
            if self._by_components
            else None,
        )

    def score(self, perception: Perception) -> Evidence:
        """Scores a batch.

        Args:
            perception: The batch, with the fields in `needs`.

        Returns:
            Scores in 0..2, no maps, and up to three sentences of each text that occur in none of the nearest normal
            texts, the rarest first. A text vector that is not finite makes the score NaN.

        Raises:
            BundleError: The fields do not have the shapes of the fit.
            FitError: The expert is not fitted.
        """
        self._require_fitted()
        self._shapes.check(perception)
        scores = np.empty(len(perception), dtype=np.float32)
        reasons = []
        for row in range(len(perception)):
            image = self._described(perception, row)
            nearest = self._nearest(image)
            cosines = self._embeddings[nearest].astype(np.float64) @ image.embedding.astype(np.float64)
            scores[row] = 1.0 - cosines.mean()
            reasons.append(self._reasons(image.text, nearest))
        return Evidence(scores=scores, maps=None, reasons=reasons)

    def state(self) -> State:
        """The text vectors of M normal images, float32, shape (M, D), their texts, and the bank of their components.

        Raises:
            FitError: The expert is not fitted.
        """
        self._require_fitted()
        bank = {} if self._bank is None else self._bank.arrays()
        return State(
            arrays={**bank, "embeddings": self._embeddings},
            document={
                "row_keys": [] if self._bank is None else list(self._bank.row_keys),
                "texts": self._texts,
                "shapes": self._shapes.document(),
            },
        )

    @classmethod
    def from_state(cls, name: str, config: TextSimilarityConfig, state: State) -> Self:
        """Restores a fitted expert; its scores are exactly those of the saved one.

        Raises:
            BundleError: The state lacks the text vectors and texts, or a matching bank of components.
        """
        expert = cls(name, config)
        embeddings = state.arrays.get("embeddings")
        texts, shapes = state.document.get("texts"), state.document.get("shapes")
        bank = None
        if expert._by_components:
            bank = ComponentBank.from_arrays(state.document.get("row_keys", ()), state.arrays)
        if (
            embeddings is None
            or embeddings.ndim != 2
            or not isinstance(texts, list)
            or not isinstance(shapes, dict)
            or not len(embeddings) == len(texts) >= _FEWEST_IMAGES
            or (bank is not None and len(bank) != len(texts))
        ):
            raise BundleError(f"{name}: the bundle has no texts of normal images; fit the category again")
        expert._shapes = FieldShapes.from_document(name, shapes)
        expert._keep(embeddings, texts, bank)
        return expert

    def _keep(self, embeddings: np.ndarray, texts: list[str], bank: ComponentBank | None) -> None:
        self._embeddings = embeddings
        self._texts = texts
        self._bank = bank
        self._said = [frozenset(sentences(text)) for text in texts]
        self._times_said = Counter(sentence for said in self._said for sentence in said)

    def _require_fitted(self) -> None:
        if not self._texts:
            raise FitError(f"{self.name}: the text similarity is not fitted; fit it or load a bundle first")

    def _described(self, perception: Perception, row: int) -> _Described:
        fields = perception.fields
        text = "" if self._config.text is None else perception.texts[self._config.text][row]
        features = np.zeros(0)
        if self._by_components:
            labels = fields[self._labels][row, 0].cpu().numpy()
            clusters = fields[self._similarity].shape[1]
            features = component_features(labels, perception.images[row], clusters, self._config.features)
        return _Described(fields[self._config.embedding][row].flatten().cpu().numpy().copy(), text, features)

    def _nearest(self, image: _Described) -> np.ndarray:
        """Row indices of the nearest normal images in the memory: int64, shape (k,); ties are broken by row key."""
        if self._bank is not None:
            _, indices = self._bank.nearest(image.features[None], self._config.neighbours)
            return np.asarray(indices[0])
        return np.argsort(-(self._embeddings @ image.embedding), kind="stable")[: self._config.neighbours]

    def _reasons(self, text: str, nearest: np.ndarray) -> list[str]:
        usual = frozenset().union(*(self._said[index] for index in nearest))
        unusual = [sentence for sentence in dict.fromkeys(sentences(text)) if sentence not in usual]
        rarest = sorted(unusual, key=lambda sentence: self._times_said[sentence])[:_MOST_REASONS]
        return [
            f"{self.name.replace('_', ' ')}: {sentence}, unlike in the nearest normal images" for sentence in rarest
        ]
