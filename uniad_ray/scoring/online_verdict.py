"""What an endpoint's scorer says of one image, as plain data that may travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uniad_ray.scoring.bundles.gallery import NearestNormal
from uniad_ray.scoring.scorer import Verdict


@dataclass(frozen=True)
class OnlineVerdict:
    """The verdict of one image, and where it comes from.

    Attributes:
        verdict: The verdict; its map is None where none was asked for.
        left_out: Why an expert of the bundle took no part, by expert.
        nearest: The normal images most like this one, nearest first.
        bundle_version: Version of the bundle that scored the image.
        bundle_digest: sha256 of the bundle's manifest.
        code_version: Version of uniad_ray that scored the image.
        image_sha256: sha256 of the encoded bytes.
    """

    verdict: Verdict
    left_out: Mapping[str, str]
    nearest: tuple[NearestNormal, ...]
    bundle_version: str
    bundle_digest: str
    code_version: str
    image_sha256: str


@dataclass(frozen=True)
class UnusableImage:
    """Why an image has no verdict.

    Attributes:
        kind: Kind of the `ImageError`.
        detail: What is wrong with the image.
    """

    kind: str
    detail: str
