"""Stored manifests and plans: their format version is checked before their content."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from uniad_ray.archive.kinds import Kind, other_kind
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import UniadRayError

ModelT = TypeVar("ModelT", bound=StrictModel)
VersionedKind = Literal["bundle", "run", "sidecar", "caption sidecar"]

_ADVICE: Final[dict[VersionedKind, str]] = {
    "bundle": "fit again",
    "run": "score again with another --out",
    "sidecar": "precompute again with another --out",
    "caption sidecar": "caption again with another --out",
}


_KINDS: Final[dict[VersionedKind, Kind]] = {
    "bundle": "a bundle",
    "run": "a run",
    "sidecar": "a sidecar",
    "caption sidecar": "a caption sidecar",
}


def other_format(location: Location, document: Any, kind: VersionedKind, reads: int) -> str | None:
    """Describe a document of another format version, and say how to replace it.

    Args:
        location: Location of the document, for the message.
        document: The decoded JSON of a manifest or plan. The manifest of a run or sidecar has its version in `plan`.
        kind: The kind of document.
        reads: The format version that this code reads.

    Returns:
        A message for the user; None if the version is `reads`, or if the document has no version.
    """
    plan = document.get("plan", document) if isinstance(document, dict) else None
    found = plan.get("format_version") if isinstance(plan, dict) else None
    if found in (None, reads):
        return None
    return f"{location}: {kind} format {found}; this version of uniad_ray reads {reads}; {_ADVICE[kind]}"


def read_document(
    root: Location,
    name: str,
    model: type[ModelT],
    *,
    kind: Literal["run", "sidecar", "caption sidecar"],
    reads: int,
    error: type[UniadRayError],
) -> ModelT:
    """Read the plan or the manifest of a run or a sidecar.

    Args:
        root: Root of the run or sidecar.
        name: `plan.json` or `manifest.json`; the file exists.
        model: The model of the document.
        kind: The kind of data expected below `root`.
        reads: The format version that this code reads.
        error: The error to raise.

    Raises:
        UniadRayError: As `error`, if the document is corrupt or of another format version, or if something else is
            stored below `root`.
        StoreError: The file cannot be read, or is not JSON.
    """
    location = root / name
    document = location.read_json()
    message = other_format(location, document, kind, reads)
    cause: ValidationError | None = None
    if message is None:
        try:
            return model.model_validate(document)
        except ValidationError as invalid:
            cause = invalid
            message = f"{location}: corrupt {name.removesuffix('.json')} of a {kind}; {_ADVICE[kind]}"
    raise error(other_kind(root, _KINDS[kind]) or message) from cause
