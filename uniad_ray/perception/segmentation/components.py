"""Components: k-means clusters of the features of normal images, as label maps (UniAD, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn import functional

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import largest_grid, resize_field
from uniad_ray.perception.sampling.candidate_sample import CandidateSample
from uniad_ray.perception.segmentation.clustering import choose_clusters, cluster_centres
from uniad_ray.perception.segmentation.crf import CrfConfig, DenseCrf
from uniad_ray.perception.segmentation.guided_upsampling import guided_upsample


class ComponentsConfig(StrictModel):
    """Options of the components.

    Attributes:
        fields: Fields to cluster; they are concatenated on the largest of their grids.
        clusters: Number of components K. `auto` selects the largest K in `cluster_range` for which two halves of the
            feature vectors agree.
        cluster_range: The smallest and the largest K that `auto` tries.
        restarts: Number of k-means starts; the best is kept.
        candidates: Maximum number of feature vectors in memory while fitting, sampled evenly over all normal images.
        temperature: Temperature of the softmax that turns similarities into label probabilities.
        crf: Refinement by a fully connected random field; None uses bilinear upsampling only.
        guide_radius: Radius r of the guided filter that upsamples the field; its windows have 2r + 1 nodes.
        guide_epsilon: The guided filter ignores edges with a contrast below the root of this value (colours in 0..1).
        seed: Seed of the sample and of k-means.
    """

    fields: tuple[str, ...] = Field(min_length=1)
    clusters: int | Literal["auto"] = 5
    cluster_range: tuple[int, int] = (3, 12)
    restarts: int = Field(default=10, ge=1, le=1000)
    candidates: int = Field(default=20_000, ge=128, le=10_000_000)
    temperature: float = Field(default=0.02, gt=0.0, le=10.0)
    crf: CrfConfig | None = CrfConfig()
    guide_radius: int = Field(default=2, ge=1, le=64)
    guide_epsilon: float = Field(default=1e-3, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        smallest, largest = self.cluster_range
        if not 2 <= smallest <= largest <= 64:
            raise ValueError(f"cluster_range must be two ascending numbers in 2..64, not {smallest}, {largest}")
        if self.clusters != "auto" and not 2 <= self.clusters <= 64:
            raise ValueError(f"clusters must be in 2..64 or auto, not {self.clusters}")
        return self


class Components:
    """Label maps of components.

    Provides `{name}/labels`: uint8, shape (N, 1, H, W), at the size of the images, with values below K. Label 0 is the
    cluster with the most feature vectors in normal images. Also provides `{name}/similarity`: float32, shape
    (N, K, h, w), the cosine similarity of every feature vector to every centre.
    """

    config_model: ClassVar[type[ComponentsConfig]] = ComponentsConfig

    def __init__(self, name: str, config: ComponentsConfig, device: str) -> None:
        """Creates unfitted components."""
        self.name = name
        self.config = config
        self.needs = frozenset(config.fields)
        self.provides = self.fields_of(name, config)
        self._device = torch.device(device)
        self._crf = DenseCrf(config.crf, self._device) if config.crf is not None else None
        self._centres: torch.Tensor | None = None
        self._agreement: dict[int, float] = {}

    @classmethod
    def fields_of(cls, name: str, config: ComponentsConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/labels", f"{name}/similarity"})

    def fit(self, stream: PerceptionStream) -> None:
        """Finds the centres in one pass, independent of the order and batching of the images.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: There are too few distinct feature vectors, or one is not finite.
        """
        sample = CandidateSample(self.config.candidates, self.config.seed)
        with torch.inference_mode():
            for perception in stream():
                for row, row_key in enumerate(perception.row_keys):
                    vectors = self._unit_features(perception, row).flatten(1).T.contiguous()
                    if not bool(torch.isfinite(vectors).all()):
                        raise FitError(
                            f"{self.name}: image {row_key} has features that are not finite; remove the image or "
                            "check the weights"
                        )
                    sample.add(row_key, vectors)
        candidates = sample.vectors()
        self._check_distinct(candidates)
        clusters: int
        if self.config.clusters == "auto":
            smallest, largest = self.config.cluster_range
            clusters, self._agreement = choose_clusters(
                candidates, range(smallest, largest + 1), self.config.restarts, self.config.seed
            )
        else:
            clusters, self._agreement = self.config.clusters, {}
        self._centres = torch.from_numpy(cluster_centres(candidates, clusters, self.config.restarts, self.config.seed))

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Labels every pixel of every image, one image at a time; see the class for shapes.

        Raises:
            FitError: The components are not fitted.
        """
        centres = self._fitted_centres().to(self._device)
        with torch.inference_mode(), _one_thread():
            directions = functional.normalize(centres, dim=1)
            similarities, labels = [], []
            for row in range(len(perception)):
                features = self._unit_features(perception, row)
                similarity = torch.tensordot(directions, features, dims=1)
                similarities.append(similarity)
                labels.append(self._label_map(similarity, perception.images[row]))
        # Stacking outside of inference mode gives ordinary tensors.
        return {
            f"{self.name}/labels": torch.stack(labels)[:, None],
            f"{self.name}/similarity": torch.stack(similarities),
        }

    def state(self) -> State:
        """The centres, float32, shape (K, C); with `auto` also the agreement for every K.

        Raises:
            FitError: The components are not fitted.
        """
        agreement = {str(clusters): value for clusters, value in self._agreement.items()}
        return State(arrays={"centres": self._fitted_centres().numpy()}, document={"agreement": agreement})

    def restore(self, state: State) -> None:
        """Restores the centres of an instance with the same configuration.

        Raises:
            BundleError: The state has no centres of shape (K, C).
        """
        centres = state.arrays.get("centres")
        if centres is None or centres.ndim != 2 or not centres.size:
            raise BundleError(f"{self.name}: the bundle has no component centres; fit the category again")
        self._centres = torch.from_numpy(np.array(centres, dtype=np.float32))
        self._agreement = {int(clusters): value for clusters, value in state.document.get("agreement", {}).items()}

    def lineage(self) -> dict[str, Any]:
        """All options that affect the fields."""
        return self.config.model_dump(mode="json")

    def _fitted_centres(self) -> torch.Tensor:
        if self._centres is None:
            raise FitError(f"{self.name}: the components are not fitted; fit them or load a bundle first")
        return self._centres

    def _check_distinct(self, vectors: np.ndarray) -> None:
        wanted = self.config.cluster_range[1] * 2 if self.config.clusters == "auto" else self.config.clusters
        distinct = len(np.unique(vectors, axis=0)) if len(vectors) else 0
        if distinct < wanted:
            raise FitError(
                f"{self.name}: the normal images have only {distinct} distinct feature vectors, at least {wanted} are "
                "needed; add normal images, or check that they are not blank"
            )

    def _unit_features(self, perception: Perception, row: int) -> torch.Tensor:
        """The fields of one image on one grid, unit length per cell: float32, shape (C, h, w)."""
        fields = {
            name: perception.fields[name][row : row + 1].to(self._device).contiguous() for name in self.config.fields
        }
        grid = largest_grid(fields, self.config.fields)
        joined = torch.cat([resize_field(field, grid) for field in fields.values()], dim=1)
        return functional.normalize(joined, dim=1)[0]

    def _label_map(self, similarity: torch.Tensor, image: np.ndarray) -> torch.Tensor:
        """The label of every pixel of one image: uint8, shape (H, W)."""
        if self._crf is None or self.config.crf is None:
            scores = _resized(similarity, image.shape[0], image.shape[1])
        else:
            grid = self.config.crf.grid
            colours = torch.from_numpy(image.copy()).to(self._device).permute(2, 0, 1).to(torch.float32)
            node_colours = functional.adaptive_avg_pool2d(colours, grid)
            unary = -torch.log_softmax(_resized(similarity, grid, grid) / self.config.temperature, dim=0)
            scores = guided_upsample(
                self._crf.refine(unary, node_colours),
                colours / 255.0,
                node_colours / 255.0,
                self.config.guide_radius,
                self.config.guide_epsilon,
            )
        # Much faster than argmax along the first axis.
        return scores.max(dim=0).indices.to(torch.uint8)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread; another number rounds sums differently and could flip labels near ties."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _resized(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return resize_field(maps[None], (height, width))[0]
