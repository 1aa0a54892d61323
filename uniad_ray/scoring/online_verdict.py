"""Result of an endpoint for one image, as plain data that can be sent between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uniad_ray.scoring.bundles.gallery import NearestNormal
from uniad_ray.scoring.scorer import Verdict


@dataclass(frozen=True)
class OnlineVerdict:
    """Verdict of one image with its provenance.

    Attributes:
        verdict: The verdict; its map is None if not requested.
        left_out: By expert of the bundle without evidence, the reason.
        nearest: The most similar normal images, nearest first.
        bundle_version: Version of the bundle that scored the image.
        bundle_digest: sha256 of the bundle's manifest.
        code_version: Version of uniad_ray that scored the image.
        image_sha256: sha256 of the encoded bytes.
        region: Line around the part of the image that counts, as a PNG with transparency; None if all of it does, or
            without a map.
        picture: JPEG of the image as it was scored, if it has 16 bits a channel; None otherwise, or without a map.
    """

    verdict: Verdict
    left_out: Mapping[str, str]
    nearest: tuple[NearestNormal, ...]
    bundle_version: str
    bundle_digest: str
    code_version: str
    image_sha256: str
    region: bytes | None = None
    picture: bytes | None = None


@dataclass(frozen=True)
class UnusableImage:
    """Reason for an image without a verdict.

    Attributes:
        kind: Kind of the `ImageError`.
        detail: The problem in words.
    """

    kind: str
    detail: str
