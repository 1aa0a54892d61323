"""Versions of bundles in a store, and the pointer to the published version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

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
from uniad_ray.scoring.calibration import Threshold

POINTER_NAME = "current.json"


class Pointer(StrictModel):
    """Published version of a category."""

    category: str
    version: str
    digest: str


class StoredVersions(NamedTuple):
    """The versions of a store. One that cannot be read, such as one of another release, hides none of the others.

    Attributes:
        manifests: Those that can be read, sorted by category and version.
        unreadable: Why each of the others cannot.
    """

    manifests: tuple[BundleManifest, ...]
    unreadable: tuple[str, ...]


class BundleStore:
    """All bundles below one root: `ROOT/<category>/<version>/` and `ROOT/<category>/current.json`."""

    def __init__(self, root: str | Location) -> None:
        """Take the root; nothing is read yet."""
        self.root = root if isinstance(root, Location) else Location.parse(root)

    def categories(self) -> list[str]:
        """Return the categories with a published version, sorted.

        Raises:
            BundleError: A pointer is corrupt, or the root is not a root of bundles.
        """
        pointers = [self._read_pointer(info.location) for info in self.root.list(suffix=f"/{POINTER_NAME}")]
        if not pointers:
            self._check_root()
        return sorted(pointer.category for pointer in pointers)

    def versions(self, category: str | None = None) -> StoredVersions:
        """Return the manifests of all versions of one or all categories.

        Raises:
            BundleError: The root is not a root of bundles.
        """
        root = self.root if category is None else self._folder(category)
        manifests, unreadable = [], []
        for info in root.list(suffix=f"/{MANIFEST_NAME}"):
            try:
                folder = Location.parse(info.location.uri.removesuffix(f"/{MANIFEST_NAME}"))
                manifests.append(read_bundle_manifest(folder))
            except BundleError as error:
                unreadable.append(str(error))
        if not manifests and not unreadable:
            self._check_root()
        return StoredVersions(
            tuple(sorted(manifests, key=lambda manifest: (manifest.category, manifest.version))),
            tuple(sorted(unreadable)),
        )

    def pointer(self, category: str) -> Pointer | None:
        """Return the published version of a category, or None.

        Raises:
            BundleError: The pointer is corrupt, or the root is not a root of bundles.
        """
        location = self._folder(category) / POINTER_NAME
        if location.exists():
            return self._read_pointer(location)
        self._check_root()
        return None

    def manifest(self, category: str, version: str) -> BundleManifest:
        """Return the manifest of one version.

        Raises:
            BundleError: The version is missing or corrupt.
        """
        return read_bundle_manifest(self.folder(category, version))

    def load(self, category: str, version: str | None = None) -> Bundle:
        """Load a version, by default the published one, and verify every digest.

        Raises:
            BundleError: The version is missing or corrupt, or differs from the pointer.
        """
        if version is not None:
            return read_bundle(self.folder(category, version))
        pointer = self.pointer(category)
        if pointer is None:
            raise BundleError(
                f"{self.root}: no published bundle for category {category!r}; fit one, or run "
                f"`uniad-ray bundles {self.root} --publish {category} VERSION`"
            )
        return self.load_published(pointer)

    def load_published(self, pointer: Pointer) -> Bundle:
        """Load the version of a pointer and verify every digest.

        Raises:
            BundleError: The version is missing or corrupt, or was changed after it was published.
        """
        bundle = read_bundle(self.folder(pointer.category, pointer.version))
        if bundle.manifest.digest != pointer.digest:
            raise BundleError(
                f"{self.root}: bundle {pointer.category} {pointer.version} was changed after it was published; "
                "publish a version again"
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
        """Write a new version, manifest last, without publishing it.

        If a stored version has the same content, calibration, lineage and code version, return that one instead.
        """
        digest = content_digest(config, files)
        for known in self.versions(category).manifests:
            is_same = known.content_digest == digest and known.calibration == calibration
            if is_same and known.lineage == dict(lineage) and known.code_version == __version__:
                return known
        return self._write(category, config, calibration, lineage, files, digest)

    def write_threshold(
        self, bundle: Bundle, threshold: Threshold, review: Threshold | None, origin: Mapping[str, Any]
    ) -> BundleManifest:
        """Write a new version of a bundle with another threshold, without publishing it.

        Args:
            bundle: The bundle; its experts, fields and calibration are copied.
            threshold: The new threshold.
            review: Its lower threshold for review; None without review.
            origin: Where the threshold comes from, for the lineage.
        """
        old = bundle.manifest
        calibration = old.calibration.model_copy(update={"threshold": threshold, "review": review})
        step = {"version": old.version, "digest": old.digest, "threshold": old.calibration.threshold.value, **origin}
        lineage = {**old.lineage, "earlier_threshold": step}
        return self._write(old.category, old.config, calibration, lineage, bundle.files, old.content_digest)

    def _write(
        self,
        category: str,
        config: FitConfig,
        calibration: CalibrationRecord,
        lineage: Mapping[str, Any],
        files: Mapping[str, bytes],
        digest: str,
    ) -> BundleManifest:
        now = datetime.now(UTC)
        # Versions with other thresholds share their content, and may be written in one second.
        named = hashlib.sha256(f"{digest} {calibration.model_dump_json()}".encode()).hexdigest()
        manifest = BundleManifest(
            format_version=FORMAT_VERSION,
            category=category,
            version=f"{now:%Y%m%d-%H%M%S}-{named[:8]}",
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
        """Verify every file of a version, newer or older, and point the category to it.

        Raises:
            BundleError: The version is missing or corrupt; the pointer is unchanged.
        """
        if not (self.folder(category, version) / MANIFEST_NAME).exists():
            known = ", ".join(manifest.version for manifest in self.versions(category).manifests) or "none"
            raise BundleError(f"{self.root}: no version {version!r} of category {category!r}; there are: {known}")
        manifest = read_bundle(self.folder(category, version)).manifest
        pointer = Pointer(category=category, version=version, digest=manifest.digest)
        (self._folder(category) / POINTER_NAME).write_json(pointer.model_dump(mode="json"))
        return pointer

    def publish_fit(self, written: BundleManifest) -> tuple[BundleManifest, BundleManifest | None]:
        """Publish a fitted version, unless the published one is the same with a threshold that a user has set.

        Args:
            written: The version that a fit has written.

        Returns:
            The version that is published now; and the one that was published before if a user had set its threshold,
            else None. They are the same if the threshold is kept.

        Raises:
            BundleError: The written version is missing or corrupt.
        """
        before = self._published(written.category)
        has_own = before is not None and "earlier_threshold" in before.lineage
        if before is not None and has_own and _is_same_fit(before, written):
            return before, before
        self.publish(written.category, written.version)
        return written, before if has_own else None

    def folder(self, category: str, version: str) -> Location:
        """Return the location of a version."""
        return self._folder(category) / version

    def _check_root(self) -> None:
        """Raise if the root is an archive, run or sidecar; called when nothing was found."""
        if wrong := other_kind(self.root, "a root of bundles"):
            raise BundleError(wrong)

    def _folder(self, category: str) -> Location:
        return self.root / safe_segment(category)

    def _published(self, category: str) -> BundleManifest | None:
        """The published version; None without one, or if it cannot be read, because a new fit replaces it then."""
        try:
            pointer = self.pointer(category)
            return None if pointer is None else self.manifest(category, pointer.version)
        except BundleError:
            return None

    def _read_pointer(self, location: Location) -> Pointer:
        try:
            return Pointer.model_validate(location.read_json())
        except ValidationError as error:
            raise BundleError(f"{location}: corrupt pointer; publish a version again") from error


def _is_same_fit(one: BundleManifest, other: BundleManifest) -> bool:
    """Whether two versions differ in nothing but thresholds, lineage and time."""
    thresholds = {"threshold": other.calibration.threshold, "review": other.calibration.review}
    is_same_calibration = one.calibration.model_copy(update=thresholds) == other.calibration
    return one.content_digest == other.content_digest and is_same_calibration
