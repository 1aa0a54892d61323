"""The format version of stored manifests and plans, checked before their content."""

from __future__ import annotations

from typing import Any, Final, Literal

from uniad_ray.archive.stores.location import Location

VersionedKind = Literal["bundle", "run", "sidecar"]

_ADVICE: Final[dict[VersionedKind, str]] = {
    "bundle": "fit again",
    "run": "score again with another --out",
    "sidecar": "precompute again with another --out",
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
