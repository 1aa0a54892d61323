"""Parts of the OpenAPI document beyond the signatures: bodies, examples and error responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from uniad_ray.serving.http.images import BODY_TYPES, ScoreRequest
from uniad_ray.serving.http.problems import MEDIA_TYPE, ProblemDocument, title_of
from uniad_ray.serving.http.schemas import json_schema_examples

SCORE_EXAMPLE: Final = {"content": {"application/json": {"example": json_schema_examples()}}}


def score_body(most_images: int) -> dict[str, Any]:
    """Describe the body of a request with images to score.

    Args:
        most_images: Maximum number of images of a request.
    """
    as_json = ScoreRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    as_json["properties"]["images"]["maxItems"] = most_images
    binary = {"type": "string", "format": "binary"}
    parts = {"type": "array", "minItems": 1, "maxItems": most_images, "items": binary}
    return {
        "required": True,
        "content": {
            **{kind: {"schema": binary} for kind in BODY_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": parts},
                    "additionalProperties": False,
                }
            },
            "application/json": {
                "schema": as_json,
                "example": {"images": [{"name": "0001.png", "base64": "iVBORw0KGgo="}]},
            },
        },
    }


def problems(kinds: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of an operation, by status.

    Args:
        kinds: Problem types, from `problems.TYPES`.
    """
    by_status: dict[int, list[tuple[str, str]]] = {}
    for kind in kinds:
        status, title = title_of(kind)
        by_status.setdefault(status, []).append((kind, title))
    return {
        status: {
            "description": "; ".join(f"{title} (`{kind}`)" for kind, title in entries),
            "content": {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
        }
        for status, entries in sorted(by_status.items())
    }
