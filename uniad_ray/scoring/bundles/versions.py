"""List the bundles of a root, and publish a version of a category."""

from __future__ import annotations

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.scoring.bundles.store import BundleStore, Pointer


class BundleVersion(StrictModel):
    """One stored version of a bundle.

    Attributes:
        category: Scored category.
        version: Name of the version.
        published: Whether it is the published version of the category.
        created_at: UTC, ISO 8601.
        code_version: Version of uniad_ray at the fit.
        profile: Name of the profile.
        experts: Experts of the bundle.
        fit_images: Number of normal images in the fit.
        calibration: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        threshold: Threshold on the calibrated scale.
        digest: sha256 of the manifest.
        bytes: Total size of the files.
    """

    category: str
    version: str
    published: bool
    created_at: str
    code_version: str
    profile: str
    experts: tuple[str, ...]
    fit_images: int
    calibration: str
    threshold: float
    digest: str
    bytes: int


class BundleList(StrictModel):
    """All versions below a root.

    Attributes:
        root: Root of the bundles.
        bundles: The versions that can be read.
        unreadable: Why each of the others cannot.
    """

    root: str
    bundles: tuple[BundleVersion, ...]
    unreadable: tuple[str, ...] = ()


def list_bundles(root: str) -> BundleList:
    """List every version of every category, sorted by category and time.

    Raises:
        BundleError: There are no bundles, or a pointer is corrupt.
    """
    store = BundleStore(root)
    manifests, unreadable = store.versions()
    if not manifests and not unreadable:
        raise BundleError(
            f"{Location.parse(root)}: no bundles there; make one with `uniad-ray fit ARCHIVE --bundles {root}`"
        )
    pointers = {name: store.pointer(name) for name in {manifest.category for manifest in manifests}}
    return BundleList(
        root=store.root.uri,
        bundles=tuple(
            BundleVersion(
                category=manifest.category,
                version=manifest.version,
                published=(pointer := pointers[manifest.category]) is not None and pointer.version == manifest.version,
                created_at=manifest.created_at,
                code_version=manifest.code_version,
                profile=manifest.config.name,
                experts=manifest.fitted_experts,
                fit_images=manifest.calibration.fit_images,
                calibration=manifest.calibration.method,
                threshold=manifest.calibration.threshold.value,
                digest=manifest.digest,
                bytes=sum(entry.bytes for entry in manifest.files.values()),
            )
            for manifest in manifests
        ),
        unreadable=unreadable,
    )


def publish_bundle(root: str, category: str, version: str) -> Pointer:
    """Publish a version, newer or older; it then scores the category.

    Raises:
        BundleError: The version is missing or corrupt; the pointer is unchanged.
    """
    return BundleStore(root).publish(category, version)
