"""Recognise archives, runs, bundles and sidecars, for messages about mixed-up paths."""

from __future__ import annotations

import itertools
from typing import Final, Literal

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import StoreError

Kind = Literal["an archive", "a run", "a sidecar", "a caption sidecar", "a bundle", "a root of bundles"]

_DOCUMENTS: Final = ("manifest.json", "plan.json")
_KEYS: Final[dict[Kind, frozenset[str]]] = {
    "an archive": frozenset({"shards", "ingests"}),
    "a run": frozenset({"run_id", "plan"}),
    "a sidecar": frozenset({"files_sha256", "plan"}),
    "a caption sidecar": frozenset({"plan", "prompt_tokens"}),
    "a bundle": frozenset({"content_digest", "calibration"}),
}
_KEYS_OF_PLANS: Final[dict[Kind, frozenset[str]]] = {
    "a run": frozenset({"bundles", "options"}),
    "a sidecar": frozenset({"config", "categories"}),
    "a caption sidecar": frozenset({"prompt", "model_digest"}),
}
_POINTER: Final = "/current.json"
_LISTED: Final = 10_000
"""Maximum number of objects to list in search of a bundle's pointer."""
_ADVICE: Final[dict[Kind, str]] = {
    "an archive": "pass the ARCHIVE of `uniad-ray ingest`",
    "a run": "pass the --out of `uniad-ray score`",
    "a sidecar": "pass the --out of `uniad-ray precompute`",
    "a caption sidecar": "pass the --out of `uniad-ray caption`",
    "a root of bundles": "pass the --bundles of `uniad-ray fit`",
}


def other_kind(location: Location, expected: Kind) -> str | None:
    """Explains that a location holds another kind of data than expected, and which path to pass instead.

    Args:
        location: The location passed by the user.
        expected: The expected kind; never `a bundle`, because users pass the root of bundles.

    Returns:
        A message for the user; None if the location has the expected kind or an unknown one.
    """
    found = _by_document(location)
    if found is None and expected != "a root of bundles" and _has_pointer(location):
        found = "a root of bundles"
    return None if found in (None, expected) else f"{location} is {found}, not {expected}; {_ADVICE[expected]}"


def _by_document(location: Location) -> Kind | None:
    for name, kinds in zip(_DOCUMENTS, (_KEYS, _KEYS_OF_PLANS), strict=True):
        try:
            document = (location / name).read_json()
        except StoreError:
            continue
        for kind, keys in kinds.items():
            if isinstance(document, dict) and keys <= document.keys():
                return kind
    return None


def _has_pointer(location: Location) -> bool:
    return any(info.relative.endswith(_POINTER) for info in itertools.islice(location.list(), _LISTED))
