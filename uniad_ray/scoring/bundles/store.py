"""Versions of bundles in a store, and the pointer that says which one is published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from uniad_ray import __version__
from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.naming import safe_segment
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError
from uniad_ray.scoring.bundles.bundle import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Bundle,
    BundleManifest,
    CalibrationRecord,
    FileDigest,
    content_digest,
    read_bundle,
    read_bundle_manifest,
)

POINTER_NAME = "current.json"


class Pointer(StrictModel):
    """Which version of a category is published."""

    category: str
    version: str
    digest: str


class BundleStore:
    """All bundles below one root: `ROOT/<category>/<version>/` and `ROOT/<category>/current.json`."""

    def __init__(self, root: str | Location) -> None:
        """Names the root; nothing is read yet."""
        self.root = root if isinstance(root, Location) else Location.parse(root)

    def categories(self) -> list[str]:
        """Categories that have a published version, sorted.

        Raises:
            BundleError: A pointer is damaged, or the root is something else than a root of bundles.
        """
        pointers = [self._read_pointer(info.location) for info in self.root.list(suffix=f"/{POINTER_NAME}")]
        if not pointers:
            self._check_root()
        return sorted(pointer.category for pointer in pointers)

    def versions(self, category: str | None = None) -> list[BundleManifest]:
        """Manifests of all versions, of one category or of all, sorted by category and version.

        Raises:
            BundleError: One is damaged, or the root is something else than a root of bundles.
        """
        root = self.root if category is None else self._folder(category)
        manifests = [
            read_bundle_manifest(Location.parse(info.location.uri.removesuffix(f"/{MANIFEST_NAME}")))
            for info in root.list(suffix=f"/{MANIFEST_NAME}")
        ]
        if not manifests:
            self._check_root()
        return sorted(manifests, key=lambda manifest: (manifest.category, manifest.version))

    def pointer(self, category: str) -> Pointer | None:
        """The published version of a category, or None.

        Raises:
            BundleError: The pointer is damaged, or the root is something else than a root of bundles.
        """
        location = self._folder(category) / POINTER_NAME
        if location.exists():
            return self._read_pointer(location)
        self._check_root()
        return None

    def manifest(self, category: str, version: str) -> BundleManifest:
        """Manifest of one version.

        Raises:
            BundleError: There is no such version, or it is damaged.
        """
        return read_bundle_manifest(self.folder(category, version))

    def load(self, category: str, version: str | None = None) -> Bundle:
        """Loads a version, by default the published one, with every digest checked.

        Raises:
            BundleError: There is none, or it is damaged, or it is not what the pointer says.
        """
        if version is not None:
            return read_bundle(self.folder(category, version))
        pointer = self.pointer(category)
        if pointer is None:
            raise BundleError(
                f"{self.root}: no published bundle for category {category!r}; fit one, or "
                f"`uniad-ray bundles {self.root} --publish {category} VERSION`"
            )
        return self.load_published(pointer)

    def load_published(self, pointer: Pointer) -> Bundle:
        """Loads what a pointer names, with every digest checked.

        Raises:
            BundleError: There is no such version, or it is damaged, or it is not what was published.
        """
        bundle = read_bundle(self.folder(pointer.category, pointer.version))
        if bundle.manifest.digest != pointer.digest:
            raise BundleError(
                f"{self.root}: bundle {pointer.category} {pointer.version} was changed after it was published"
            )
        return bundle

    def write(
        self,
        category: str,
        config: FitConfig,
        calibration: CalibrationRecord,
        lineage: Mapping[str, Any],
        files: Mapping[str, bytes],
    ) -> BundleManifest:
        """Writes a new version, manifest last; it is not published yet.

        A fit with the same result as a stored version gives that version back instead of a copy of it.
        """
        digest = content_digest(config, files)
        for known in self.versions(category):
            if known.content_digest == digest and known.lineage == dict(lineage) and known.code_version == __version__:
                return known
        now = datetime.now(UTC)
        manifest = BundleManifest(
            format_version=FORMAT_VERSION,
            category=category,
            version=f"{now:%Y%m%d-%H%M%S}-{digest[:8]}",
            created_at=now.isoformat(timespec="seconds"),
            code_version=__version__,
            content_digest=digest,
            config=config,
            calibration=calibration,
            lineage=dict(lineage),
            files={
                name: FileDigest(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
                for name, data in sorted(files.items())
            },
        )
        folder = self.folder(category, manifest.version)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST_NAME).write_bytes(manifest.encode())
        return manifest

    def publish(self, category: str, version: str) -> Pointer:
        """Moves the pointer of a category to a version, forwards or back, after checking every file of it.

        Raises:
            BundleError: There is no such version, or it is damaged; the pointer stays where it was.
        """
        if not (self.folder(category, version) / MANIFEST_NAME).exists():
            known = ", ".join(manifest.version for manifest in self.versions(category)) or "none"
            raise BundleError(f"{self.root}: no version {version!r} of category {category!r}; there are: {known}")
        manifest = read_bundle(self.folder(category, version)).manifest
        pointer = Pointer(category=category, version=version, digest=manifest.digest)
        (self._folder(category) / POINTER_NAME).write_json(pointer.model_dump(mode="json"))
        return pointer

    def folder(self, category: str, version: str) -> Location:
        """Where a version lies."""
        return self._folder(category) / version

    def _check_root(self) -> None:
        """Called where nothing was found, which has a reason if an archive or a run was given as the root."""
        if wrong := other_kind(self.root, "a root of bundles"):
            raise BundleError(wrong)

    def _folder(self, category: str) -> Location:
        return self.root / safe_segment(category)

    def _read_pointer(self, location: Location) -> Pointer:
        try:
            return Pointer.model_validate(location.read_json())
        except ValidationError as error:
            raise BundleError(f"{location}: damaged pointer; publish a version again") from error
