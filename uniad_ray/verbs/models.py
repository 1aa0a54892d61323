"""The verbs that make bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uniad_ray.verbs.defaults import DEFAULT_PROFILE, Device

if TYPE_CHECKING:
    from uniad_ray.pipelines.fit.report import FitReport


def fit(
    archive: str,
    *,
    bundles: str,
    categories: Sequence[str] = (),
    profile: str = DEFAULT_PROFILE,
    overrides: Sequence[str] = (),
    names: str | None = None,
    exclude: Sequence[str] = (),
    regions: Sequence[str] = (),
    sidecar: str | None = None,
    known_defects: str | None = None,
    publish: bool = True,
    accept_unusual: bool = False,
    workers: int | None = None,
    checkpoints: str | None = None,
    device: Device = "auto",
    address: str | None = None,
) -> FitReport:
    """Fits a bundle for each category of an archive on its normal images.

    If some normal images do not look like the others, the bundle is written but not published.

    Args:
        archive: Root of the archive.
        bundles: Root of the bundles.
        categories: Categories to fit; default all.
        profile: A profile's name, or a YAML file.
        overrides: Assignments such as `calibration.holdout=0.3`.
        names: YAML file with readable names for object classes, such as `part-1: bolt`.
        exclude: Images to leave out of this fit: source URIs, or their ends such as `good/007.png`.
        regions: Files with the part of the images that counts, as `FILE` or `CATEGORY=FILE`: a PNG mask, or polygons in
            YAML. Nothing else is remembered or scored.
        sidecar: Root of a sidecar of the archive; its content is read instead of computed.
        known_defects: Folder of images with known defects. With eight or more, the expert selection uses them; nothing
            is learned from them. Anomalous images of the split `validation` are used without this option.
        publish: Publish each bundle once it is fitted and verified.
        accept_unusual: Publish even if some normal images do not look like the others.
        workers: Processes that train students; default chooses by the cluster.
        checkpoints: Root of the training checkpoints; default is below `bundles`.
        device: `auto`, `cpu` or `cuda`.
        address: Ray cluster to join; default starts Ray on this machine.

    Returns:
        The bundles, and the reason of each category that failed.

    Raises:
        ConfigError: The configuration is wrong.
        ArchiveError: The archive cannot be read, or has no such category or image.
        SidecarError: The sidecar is missing, unfinished, corrupt, or of another archive.
    """
    from uniad_ray.config.loading import load_config
    from uniad_ray.perception.objects.names import names_overrides
    from uniad_ray.pipelines.fit.job import fit as run

    return run(
        archive,
        bundles,
        load_config(profile, overrides, from_files={} if names is None else {names: names_overrides(names)}),
        categories=categories,
        exclude=exclude,
        regions=regions,
        sidecar=sidecar,
        known_defects=known_defects,
        publish=publish,
        accept_unusual=accept_unusual,
        device=device,
        workers=workers,
        checkpoints=checkpoints,
        address=address,
    )
