"""The plan of a sidecar, written before its first file, and its manifest, written after the last."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from uniad_ray.archive.formats import read_document
from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.schemas import DatasetSchema, dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ObjectExistsError, SidecarError
from uniad_ray.scoring.bundles.published import PlannedBundle
from uniad_ray.sidecars.encoding import Stage

PLAN_NAME = "plan.json"
FILES_NAME = "files.parquet"
MANIFEST_NAME = "manifest.json"
LEASE_FOLDER = "lease"
FORMAT_VERSION = 2


class CategoryPlan(StrictModel):
    """Precomputation of one category.

    Attributes:
        bundle: Bundle that provides the learned state; None if no learned field is stored.
        image_size: Height and width of the decoded images, pixels.
        value_range: Values of 16-bit images that become black and white; None for images with 8 bits.
        extractors: Lineage by extractor, with digests of weights.
        fields: Digest of each field (see `feature_fingerprints`) by stage and field.
    """

    bundle: PlannedBundle | None
    image_size: tuple[int, int]
    extractors: dict[str, Any]
    fields: dict[Stage, dict[str, str]]
    value_range: ValueRange | None = None


class SidecarPlan(StrictModel):
    """Everything that determines the rows of a sidecar.

    Attributes:
        format_version: Version of the sidecar's layout.
        code_version: Version of uniad_ray.
        archive: URI of the archive.
        archive_digest: Digest of its content.
        bundle_root: URI of the bundles; None without bundles.
        config: Configuration of the extractors; None with bundles, which contain theirs.
        categories: Precomputation by category.
        chunks: Number of chunks.
        images: Number of image rows.
    """

    format_version: int
    code_version: str
    archive: str
    archive_digest: str
    bundle_root: str | None
    config: FitConfig | None
    categories: dict[str, CategoryPlan]
    chunks: int
    images: int


@dataclass(frozen=True)
class SidecarFile:
    """One file of a sidecar; the fields are the columns of schema `sidecar_file`."""

    stage: Stage
    chunk: str
    category: str
    rows: int
    errors: int
    bytes: int
    sha256: str


class SidecarManifest(StrictModel):
    """A finished sidecar. Readers refuse a sidecar without a manifest.

    Attributes:
        plan: The plan.
        images: Image rows; each has a row in every stage of its category.
        errors: Images that cannot be decoded.
        bytes: Size of all files.
        files_sha256: sha256 of `files.parquet`, which lists every file with its digest.
    """

    plan: SidecarPlan
    images: int
    errors: int
    bytes: int
    files_sha256: str

    @model_validator(mode="after")
    def _rows_in_are_rows_out(self) -> SidecarManifest:
        if self.images != self.plan.images:
            raise ValueError(f"{self.images} rows for {self.plan.images} image rows")
        return self


def adopt_sidecar_plan(sidecar: Location, plan: SidecarPlan) -> None:
    """Write the plan of a new sidecar, or check it against the stored plan.

    Raises:
        SidecarError: The sidecar was started with another archive, bundles, options, stages or code.
    """
    try:
        (sidecar / PLAN_NAME).write_json(plan.model_dump(mode="json", by_alias=True), if_absent=True)
    except ObjectExistsError:
        differences = _differences(_read_plan(sidecar), plan)
        if differences:
            raise SidecarError(
                f"{sidecar}: started with {' and '.join(differences)}; use a new --out, or restore the original inputs"
            ) from None


def read_sidecar(sidecar: Location) -> SidecarManifest:
    """Read the manifest of a finished sidecar.

    Raises:
        SidecarError: There is no sidecar, it is unfinished, its manifest is corrupt or of another format version,
            or something else is there.
    """
    if not (sidecar / MANIFEST_NAME).exists():
        _read_plan(sidecar)
        raise SidecarError(
            f"{sidecar}: the sidecar is not finished; repeat the `uniad-ray precompute` command to resume it"
        )
    return read_document(
        sidecar, MANIFEST_NAME, SidecarManifest, kind="sidecar", reads=FORMAT_VERSION, error=SidecarError
    )


def encode_files(files: Sequence[SidecarFile]) -> tuple[bytes, str]:
    """Encode the list of files as Parquet, and return it with its sha256."""
    schema = dataset_schema("sidecar_file")
    names = SidecarFile.__dataclass_fields__
    data = encode_table(schema, schema.table({name: [getattr(file, name) for file in files] for name in names}))
    return data, hashlib.sha256(data).hexdigest()


def file_path(stage: Stage, chunk: str) -> str:
    """Path of the rows of a chunk within a sidecar."""
    return f"{stage}/{chunk}.parquet"


def stage_schema(stage: Stage) -> DatasetSchema:
    """Return the schema of the files of a stage."""
    # The schema `caption_sidecar` is that of `uniad-ray caption`, with tokens and seconds.
    return dataset_schema("description_sidecar" if stage == "captions" else f"{stage.removesuffix('s')}_sidecar")


def _read_plan(sidecar: Location) -> SidecarPlan:
    if not (sidecar / PLAN_NAME).exists():
        raise SidecarError(
            other_kind(sidecar, "a sidecar")
            or f"{sidecar}: no sidecar there; make one with `uniad-ray precompute ARCHIVE --out {sidecar}`"
        )
    return read_document(sidecar, PLAN_NAME, SidecarPlan, kind="sidecar", reads=FORMAT_VERSION, error=SidecarError)


def _differences(old: SidecarPlan, new: SidecarPlan) -> list[str]:
    """Describe the differences that change the rows; the URIs of archive and bundles are ignored."""
    found = []
    if old.archive_digest != new.archive_digest:
        found.append(f"an archive of digest {old.archive_digest[:12]}, not {new.archive_digest[:12]}")
    if old.code_version != new.code_version:
        found.append(f"uniad_ray {old.code_version}, not {new.code_version}")
    if sorted(old.categories) != sorted(new.categories):
        found.append(f"the categories {', '.join(sorted(old.categories))}, not {', '.join(sorted(new.categories))}")
    changed = [name for name in sorted(old.categories) if old.categories[name] != new.categories.get(name)]
    if not found and (changed or old.config != new.config):
        found.append(f"another bundle, stage or option{' for ' if changed else ''}{', '.join(changed)}")
    return found
