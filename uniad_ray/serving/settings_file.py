"""Read the settings of an endpoint from a YAML file, local or on S3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.loading import apply_overrides, parse_yaml, validate
from uniad_ray.errors import ConfigError, StoreError
from uniad_ray.serving.settings import ServeSettings

MAX_BYTES: Final = 1 << 20


def read_settings(
    place: str | None, given: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> ServeSettings:
    """Read settings from a file and apply overrides.

    Args:
        place: The file; None starts from an empty document.
        given: Keys that override those of the file.
        overrides: Assignments such as `batch.images=4`; they override both.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; the message names file and key.
    """
    document = {} if place is None else _read(place)
    document.update(given or {})
    apply_overrides(document, overrides)
    where = " with ".join([place or "serve", *(["--set"] if overrides else [])])
    return validate(ServeSettings, document, where=where)


def _read(place: str) -> dict[str, Any]:
    try:
        text = Location.parse(place).read_bytes(max_bytes=MAX_BYTES).decode()
    except StoreError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: not UTF-8 text; pass a YAML file") from error
    document = parse_yaml(text, where=place)
    if not isinstance(document, dict):
        raise ConfigError(f"{place}: expected keys and values, such as `bundles: s3://plant/bundles`")
    return document
