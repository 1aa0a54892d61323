"""Errors of the endpoint as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"

_TITLES: Final[dict[str, tuple[int, str]]] = {
    "not-authenticated": (401, "A valid key is needed"),
    "not-allowed": (403, "The key does not allow this"),
    "not-found": (404, "There is no such thing"),
    "unknown-category": (404, "There is no published bundle of that category"),
    "method-not-allowed": (405, "This address does not take that method"),
    "timed-out": (408, "The request took too long to arrive"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "The body is of a type that is not read here"),
    "invalid-request": (422, "The request is not as the API describes it"),
    "unusable-image": (422, "No image of the request can be scored"),
    "too-many-requests": (429, "The key has used up its rate"),
    "internal-error": (500, "The endpoint failed"),
    "store-unavailable": (503, "A store cannot be read"),
    "bundle-unusable": (503, "The bundle of the category cannot be used"),
    "overloaded": (503, "The endpoint has more to do than it can"),
    "not-ready": (503, "The endpoint cannot score yet"),
    "deadline-exceeded": (504, "The answer took too long"),
}
TYPES: Final = frozenset(_TITLES)
"""The last parts of all problem types; the documented kinds of errors."""


class ProblemDocument(BaseModel):
    """An error of the endpoint.

    Attributes:
        type: What kind of problem it is, as a URI reference; the last part is one of `TYPES`.
        title: The kind in words; the same for every problem of a type.
        status: The HTTP status.
        detail: What is wrong this time, and what to do.
        instance: Path of the request.
        request_id: Of the request; also in the logs.
        errors: Where single parts of the request are wrong.
    """

    model_config = ConfigDict(extra="forbid")

    type: str = Field(examples=["/problems/unknown-category"])
    title: str = Field(examples=["There is no published bundle of that category"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no category 'lid'; there are bolts, trays"])
    instance: str = Field(examples=["/v1/categories/lid/score"])
    request_id: str = Field(examples=["0192f7c1e4b07d0ab3a51f0c7f7a8c11"])
    errors: list[dict[str, Any]] = Field(default_factory=list)


class ProblemError(Exception):
    """An error that the caller is told as a problem document.

    Attributes:
        kind: One of `TYPES`.
        detail: What is wrong this time, and what to do.
        retry_after: Seconds after which another try makes sense, or None.
        errors: Where single parts of the request are wrong.
    """

    def __init__(
        self, kind: str, detail: str, *, retry_after: float | None = None, errors: list[dict[str, Any]] | None = None
    ) -> None:
        """Keeps the parts; the status and the title follow from the kind."""
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
        """The document for a request."""
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
    """Status and title of a kind.

    Raises:
        KeyError: There is no such kind.
    """
    return _TITLES[kind]
