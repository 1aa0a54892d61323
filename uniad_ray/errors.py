"""The errors of the package. Every message is written for the user."""

from __future__ import annotations


class UniadRayError(Exception):
    """Base of all errors that this package raises on purpose."""


class UserError(UniadRayError):
    """An error that the user can fix: the message says what is wrong and what to do next.

    The command line prints the message as one line and exits with code 2, without a traceback.
    """


class ConfigError(UserError):
    """A configuration key or value is wrong. The message names the file, the key and the allowed values."""


class StoreError(UserError):
    """A path or an object store cannot be read or written."""


class ObjectNotFoundError(StoreError):
    """The object to read does not exist."""


class ObjectDeniedError(StoreError):
    """The store denies access to the object."""


class BucketNotFoundError(StoreError):
    """The bucket does not exist, or its name is not one of a bucket."""


class ObjectTooLargeError(StoreError):
    """The object is larger than the reader allows."""


class ObjectExistsError(UniadRayError):
    """The object to create already exists."""


class LeaseError(UserError):
    """Another process writes the same run or archive, or has taken it over from this process."""


class ArchiveError(UserError):
    """An archive or its image source is missing, incomplete, or does not match its manifest."""


class WeightsError(UserError):
    """A weight source cannot be resolved, or its digest does not match."""


class CaptionError(UserError):
    """A vision-language model or a caption table gives no text for an image."""


class BundleError(UserError):
    """A bundle is missing, corrupt, or does not fit this version of the code."""


class FitError(UserError):
    """The normal images are missing or unusable: no bundle can be fitted."""


class RunError(UserError):
    """A scoring run cannot start, resume or be read."""


class DeliveryError(UserError):
    """A message could not be delivered to its receiver."""


class SidecarError(UserError):
    """A sidecar cannot be written or read, or belongs to another archive."""


class ImageError(UniadRayError):
    """One image cannot be used. Its row gets `status = error`, and the run continues.

    Attributes:
        kind: Stable keyword for tables: `empty`, `not_an_image`, `truncated`, `too_large`, `unsupported`,
            `not_scorable`, `no_text`, `out_of_memory` or `worker_died`.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Keeps the kind next to the message."""
        super().__init__(message)
        self.kind = kind
