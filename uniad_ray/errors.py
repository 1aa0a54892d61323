"""The errors of the package; every one carries a message fit to be shown to a user."""

from __future__ import annotations


class UniadRayError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(UniadRayError):
    """Something the user can mend: the message says what is wrong and what to do next.

    The command line prints the message as one line and exits with code 2, without a traceback.
    """


class ConfigError(UserError):
    """A configuration has a wrong key or value; the message names the file, the key and what is allowed."""


class StoreError(UserError):
    """A path or an object store cannot be read or written."""


class ObjectNotFoundError(StoreError):
    """An object that was to be read is not there."""


class ObjectTooLargeError(StoreError):
    """An object is beyond the reader's bound."""


class ObjectExistsError(UniadRayError):
    """An object that was to be created is there already."""


class ArchiveError(UserError):
    """An archive, or a source of images for one, is missing, incomplete or not as its manifest says."""


class WeightsError(UserError):
    """A weight source cannot be resolved, or its digest is not the expected one."""


class CaptionError(UserError):
    """A vision-language model, or a table of its captions, gives no text for an image."""


class BundleError(UserError):
    """A bundle is missing, damaged or does not fit this version of the code."""


class FitError(UserError):
    """Normal images are missing or unfit, so that no bundle can be made."""


class RunError(UserError):
    """A scoring run cannot start, go on or be read."""


class SidecarError(UserError):
    """A sidecar cannot be made or read, or is of another archive."""


class ImageError(UniadRayError):
    """One image cannot be used; the row gets `status = error`, and the run goes on.

    Attributes:
        kind: A stable word for tables: `empty`, `not_an_image`, `truncated`, `too_large`, `unsupported` or
            `not_scorable`.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Keeps the kind beside the message."""
        super().__init__(message)
        self.kind = kind
