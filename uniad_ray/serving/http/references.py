"""Images that a request names instead of sending them: objects below the prefixes that the operator allows."""

from __future__ import annotations

from collections.abc import Sequence

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, ObjectNotFoundError, ObjectTooLargeError, StoreError
from uniad_ray.serving.http.problems import ProblemError


def check_reference(uri: str, prefixes: Sequence[str]) -> Location:
    """The place that a caller names, if it may be read.

    Args:
        uri: `s3://bucket/key`; no other scheme, and no path.
        prefixes: Allowed prefixes, each ending in a slash.

    Raises:
        ProblemError: `not-allowed`; the same for what is not there and what is none of the caller's business.
    """
    try:
        # The prefix is compared with what is read, not with what was written: `..` and empty segments are refused here.
        location = Location.parse(uri)
    except StoreError as error:
        raise ProblemError("not-allowed", f"not a reference that may be read here: {uri[:200]!r}") from error
    if location.is_local or not any(location.uri.startswith(prefix) for prefix in prefixes):
        allowed = "no references are" if not prefixes else f"only references below {', '.join(prefixes)} are"
        raise ProblemError("not-allowed", f"{uri[:200]!r}: {allowed} allowed here")
    return location


def read_reference(location: Location, max_bytes: int) -> bytes:
    """The bytes of an object.

    Raises:
        ImageError: `not_found`, or `too_large` for one of more than `max_bytes`.
        ProblemError: `store-unavailable`.
    """
    try:
        return location.read_bytes(max_bytes=max_bytes)
    except ObjectNotFoundError as error:
        raise ImageError("not_found", f"{location}: there is no such object") from error
    except ObjectTooLargeError as error:
        raise ImageError("too_large", str(error)) from error
    except StoreError as error:
        raise ProblemError("store-unavailable", f"{location}: cannot be read now", retry_after=5) from error
