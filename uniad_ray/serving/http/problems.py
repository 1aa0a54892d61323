"""Problem documents (RFC 9457): the errors of the endpoint."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"

_TITLES: Final[dict[str, tuple[int, str]]] = {
    "not-authenticated": (401, "A valid access key is required"),
    "not-allowed": (403, "The key does not allow this"),
    "not-found": (404, "Not found"),
    "unknown-category": (404, "The category has no published bundle"),
    "method-not-allowed": (405, "Method not allowed"),
    "timed-out": (408, "The request body arrived too slowly"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "Unsupported content type"),
    "invalid-request": (422, "The request does not match the API"),
    "unusable-image": (422, "No image of the request can be scored"),
    "too-many-requests": (429, "The rate limit of the key is reached"),
    "internal-error": (500, "Internal error"),
    "store-unavailable": (503, "A store is unavailable"),
    "bundle-unusable": (503, "The bundle of the category cannot be used"),
    "overloaded": (503, "The endpoint is overloaded"),
    "not-ready": (503, "The endpoint is not ready"),
    "deadline-exceeded": (504, "The response took too long"),
}
TYPES: Final = frozenset(_TITLES)
"""Last parts of all problem type URIs: the documented kinds of errors."""


class ProblemDocument(BaseModel):
    """An error of the endpoint.

    Attributes:
        type: Problem type, as a URI reference; the last part is one of `TYPES`.
        title: Title of the problem type.
        status: HTTP status.
        detail: What is wrong, and what to do next.
        instance: Path of the request.
        request_id: Id of the request, as in the logs.
        errors: Errors of single parts of the request.
    """

    model_config = ConfigDict(extra="forbid")

    type: str = Field(examples=["/problems/unknown-category"])
    title: str = Field(examples=["The category has no published bundle"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no published category 'lid'; GET /v1/categories lists the published ones"])
    instance: str = Field(examples=["/v1/categories/lid/score"])
    request_id: str = Field(examples=["0192f7c1e4b07d0ab3a51f0c7f7a8c11"])
    errors: list[dict[str, Any]] = Field(default_factory=list)


class ProblemError(Exception):
    """An error returned to the caller as a problem document.

    Attributes:
        kind: Problem type, one of `TYPES`.
        detail: What is wrong, and what to do next.
        retry_after: Seconds to wait before a retry; None if a retry does not help.
        errors: Errors of single parts of the request.
    """

    def __init__(
        self, kind: str, detail: str, *, retry_after: float | None = None, errors: list[dict[str, Any]] | None = None
    ) -> None:
        """Keep the parts; status and title follow from the kind."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors or []

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _TITLES[self.kind][0]

    def document(self, instance: str, request_id: str) -> ProblemDocument:
        """Build the document for a request."""
        status, title = _TITLES[self.kind]
        return ProblemDocument(
            type=f"/problems/{self.kind}",
            title=title,
            status=status,
            detail=self.detail,
            instance=instance,
            request_id=request_id,
            errors=self.errors,
        )


def title_of(kind: str) -> tuple[int, str]:
    """Return the status and title of a problem type.

    Raises:
        KeyError: The type is unknown.
    """
    return _TITLES[kind]
