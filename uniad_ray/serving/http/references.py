"""Images referenced by URI: objects below the allowed prefixes."""

from __future__ import annotations

from collections.abc import Sequence

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, ObjectNotFoundError, ObjectTooLargeError, StoreError
from uniad_ray.serving.http.problems import ProblemError


def check_reference(uri: str, prefixes: Sequence[str]) -> Location:
    """Resolve a reference, if it may be read.

    Args:
        uri: `s3://bucket/key`; other schemes and local paths are refused.
        prefixes: Allowed prefixes, each with a trailing slash.

    Raises:
        ProblemError: `not-allowed`, whether or not the object exists.
    """
    try:
        # Parsing refuses `..` and empty segments, so the prefix is compared with the object that is really read.
        location = Location.parse(uri)
    except StoreError as error:
        detail = f"invalid reference {uri[:200]!r}; send s3://BUCKET/KEY below an allowed prefix"
        raise ProblemError("not-allowed", detail) from error
    if location.is_local or not any(location.uri.startswith(prefix) for prefix in prefixes):
        allowed = f"use one below {', '.join(prefixes)}" if prefixes else "send the image itself"
        raise ProblemError("not-allowed", f"reference {uri[:200]!r} is not allowed; {allowed}")
    return location


def read_reference(location: Location, max_bytes: int) -> bytes:
    """Read an object.

    Raises:
        ImageError: `not_found`, or `too_large` if the object exceeds `max_bytes`.
        ProblemError: `store-unavailable`.
    """
    try:
        return location.read_bytes(max_bytes=max_bytes)
    except ObjectNotFoundError as error:
        raise ImageError("not_found", f"{location}: no such object") from error
    except ObjectTooLargeError as error:
        raise ImageError("too_large", str(error)) from error
    except StoreError as error:
        detail = f"{location}: the store is unavailable; try again"
        raise ProblemError("store-unavailable", detail, retry_after=5) from error
