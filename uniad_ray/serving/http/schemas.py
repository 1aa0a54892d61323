"""Response models of the endpoint, published in the OpenAPI document."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from uniad_ray.runs.maps import encode_map
from uniad_ray.scoring.bundles.versions import BundleVersion
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage

MapForm = Literal["none", "png", "float16"]


class ResponseModel(BaseModel):
    """Base of all response models."""

    model_config = ConfigDict(extra="forbid")


class ExpertScore(ResponseModel):
    """Score of one expert for an image."""

    expert: str = Field(examples=["relations"])
    raw: float = Field(description="Score on the expert's own scale.", examples=[0.62])
    calibrated: float = Field(description="Score in deviations of held-out normal images.", examples=[11.8])


class LeftOutExpert(ResponseModel):
    """An expert of the bundle that did not score this image."""

    expert: str = Field(examples=["text_similarity"])
    reason: str = Field(examples=["no text within 2 seconds"])


class AnomalyMap(ResponseModel):
    """Anomaly map of an image on the calibrated scale; it covers the whole image.

    `png`: 8-bit grey; 0 is `low` and 255 is `high`. `float16`: zlib-compressed little-endian float16, row by row.
    """

    form: Literal["png", "float16"]
    height: int = Field(examples=[256])
    width: int = Field(examples=[256])
    low: float = Field(description="Value of the lowest pixel.", examples=[0.1])
    high: float = Field(description="Value of the highest pixel.", examples=[23.5])
    data: str = Field(description="The map, in base64.")


class NearestNormalImage(ResponseModel):
    """A normal image of the fit that is similar to the scored image."""

    image: str = Field(description="Path or URI it was ingested from.", examples=["train/good/0007.png"])
    distance: float = Field(description="Distance to the scored image, on the category's own scale.", examples=[0.12])
    thumbnail: str = Field(description="JPEG in base64, with the aspect ratio of the images of the bundle.")


class Lineage(ResponseModel):
    """Lineage of a verdict: bundle, code and image."""

    bundle_version: str = Field(examples=["20261127-101112-0a1b2c3d"])
    bundle_digest: str = Field(description="sha256 of the bundle's manifest.")
    code_version: str = Field(description="Version of uniad_ray that computed the verdict.", examples=["0.1.0"])
    image_sha256: str = Field(description="sha256 of the encoded image.")


class ImageProblem(ResponseModel):
    """The reason why an image has no verdict."""

    kind: str = Field(examples=["truncated"])
    detail: str = Field(examples=["JPEG: ends early or is corrupt"])


class ImageResponse(ResponseModel):
    """The verdict of one image, or its error.

    An image is anomalous if its score is above the threshold. Both are in deviations of held-out normal images.
    """

    image: str = Field(description="File name, URI or position in the request.", examples=["0001.png"])
    status: Literal["ok", "error"]
    decision: Literal["normal", "review", "anomalous"] | None = None
    score: float | None = Field(default=None, examples=[10.2])
    threshold: float | None = Field(default=None, examples=[2.0])
    review_threshold: float | None = Field(
        default=None, description="Images above it, but not above the threshold, are for review; null without review."
    )
    experts: list[ExpertScore] = Field(default_factory=list)
    left_out: list[LeftOutExpert] = Field(default_factory=list)
    reasons: list[str] = Field(default_factory=list, examples=[["1 of part-5 expected, 0 found"]])
    map: AnomalyMap | None = None
    region: str | None = Field(
        default=None,
        description="Line around the part of the image that counts: a PNG with transparency in base64, to be stretched "
        "over the image. null if all of it counts, or without a map.",
    )
    picture: str | None = Field(
        default=None,
        description="The image as it was scored: a JPEG in base64, with map=png, if it has more than 8 bits. A browser "
        "shows the values of a 12-bit camera as black. null otherwise.",
    )
    nearest: list[NearestNormalImage] = Field(default_factory=list)
    lineage: Lineage | None = None
    error: ImageProblem | None = None


class ScoreResponse(ResponseModel):
    """The verdicts of a request, in the order of its images."""

    request_id: str
    category: str = Field(examples=["trays"])
    images: list[ImageResponse]


class CategorySummary(ResponseModel):
    """A category that can be scored."""

    category: str = Field(examples=["trays"])


class CategoryList(ResponseModel):
    """All categories that the key is valid for."""

    categories: list[CategorySummary]


class RefusedBundle(ResponseModel):
    """A published bundle that a replica refused to load."""

    version: str
    reason: str


class LoadedVersion(ResponseModel):
    """The bundle of a category that a replica has loaded."""

    category: str
    version: str
    digest: str
    load_seconds: float
    experts: list[str] = Field(description="Experts of the verdict.", examples=[["patch"]])
    no_texts: str | None = Field(
        default=None, description="Why experts that need texts are left out; null if they are not."
    )
    refused: RefusedBundle | None = None
    store_error: str | None = None


class BundleVersions(ResponseModel):
    """All stored versions, and the versions that one replica has loaded."""

    bundles: list[BundleVersion]
    loaded: list[LoadedVersion]


class ReadyResponse(ResponseModel):
    """The endpoint can score images."""

    status: Literal["ready"] = "ready"
    checked: list[str] = Field(description="Categories whose reference images reproduce the scores of the fit.")


class HealthResponse(ResponseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


def image_response(name: str, found: OnlineVerdict | UnusableImage, form: MapForm) -> ImageResponse:
    """Build the response for one image.

    Args:
        name: Name of the image in the request.
        found: Result of a replica.
        form: Form of the map, if the verdict has one.
    """
    if isinstance(found, UnusableImage):
        return ImageResponse(image=name, status="error", error=ImageProblem(kind=found.kind, detail=found.detail))
    verdict = found.verdict
    return ImageResponse(
        image=name,
        status="ok",
        decision=verdict.decision,
        score=verdict.score,
        threshold=verdict.threshold,
        review_threshold=verdict.review_threshold,
        experts=[
            ExpertScore(expert=expert, raw=raw, calibrated=verdict.calibrated[expert])
            for expert, raw in verdict.raw.items()
        ],
        left_out=[LeftOutExpert(expert=expert, reason=reason) for expert, reason in found.left_out.items()],
        reasons=list(verdict.reasons),
        nearest=[
            NearestNormalImage(
                image=entry.source_uri,
                distance=entry.distance,
                thumbnail=base64.b64encode(entry.thumbnail).decode("ascii"),
            )
            for entry in found.nearest
        ],
        map=None if verdict.anomaly_map is None else map_document(verdict.anomaly_map, form),
        region=None if found.region is None else base64.b64encode(found.region).decode("ascii"),
        picture=base64.b64encode(found.picture).decode("ascii") if found.picture and form == "png" else None,
        lineage=Lineage(
            bundle_version=found.bundle_version,
            bundle_digest=found.bundle_digest,
            code_version=found.code_version,
            image_sha256=found.image_sha256,
        ),
    )


def map_document(anomaly_map: np.ndarray, form: MapForm) -> AnomalyMap | None:
    """Encode a map in the requested form; None for `none`.

    Args:
        anomaly_map: float32, shape (height, width).
        form: `none`, `png` or `float16`.
    """
    if form == "none":
        return None
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    data = _grey_png(anomaly_map, low, high) if form == "png" else zlib.compress(encode_map(anomaly_map), 1)
    height, width = anomaly_map.shape
    return AnomalyMap(
        form=form, height=height, width=width, low=low, high=high, data=base64.b64encode(data).decode("ascii")
    )


def _grey_png(anomaly_map: np.ndarray, low: float, high: float) -> bytes:
    from PIL import Image

    scaled = (anomaly_map - low) * (255.0 / max(high - low, 1e-12))
    sink = io.BytesIO()
    Image.fromarray(np.rint(scaled).astype(np.uint8)).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def json_schema_examples() -> dict[str, Any]:
    """Return an example response for the OpenAPI document."""
    lineage = Lineage(
        bundle_version="20261127-101112-0a1b2c3d",
        bundle_digest="5e8f" * 16,
        code_version="0.1.0",
        image_sha256="c0ff" * 16,
    )
    image = ImageResponse(
        image="0001.png",
        status="ok",
        decision="anomalous",
        score=10.2,
        threshold=2.0,
        experts=[ExpertScore(expert="relations", raw=0.62, calibrated=11.8)],
        reasons=["1 of part-5 expected, 0 found"],
        lineage=lineage,
    )
    example = ScoreResponse(request_id="0192f7c1e4b07d0ab3a51f0c7f7a8c11", category="trays", images=[image])
    return example.model_dump(mode="json")
