"""The plan of a scoring run, written before the first score, and its manifest, written after the last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from uniad_ray import __version__
from uniad_ray.archive.formats import read_document
from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, choose_categories, chunks
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError, ObjectExistsError, RunError
from uniad_ray.scoring.bundles.published import PlannedBundle, published_bundles
from uniad_ray.scoring.bundles.store import BundleStore

PLAN_NAME = "plan.json"
CHUNKS_NAME = "chunks.parquet"
MANIFEST_NAME = "manifest.json"
LEASE_FOLDER = "lease"
MAP_CANDIDATES = "_map_candidates"
FORMAT_VERSION = 2


class ScoreOptions(StrictModel):
    """Options that determine the content of a run, besides archive and bundles.

    Attributes:
        categories: Categories to score; None scores all.
        splits: Splits to score; None scores all.
        shards: Paths of the shards to score, as in the archive's manifest; None scores all.
        maps: Anomaly maps to keep: `all`, `top` (the `top_maps` highest scores of each category) or `none`.
        top_maps: Number of maps per category if `maps` is `top`.
        false_positive_rate: False-positive rate of the threshold, in (0, 1); None keeps the bundle's.
        experts: Experts to fuse; None takes those of the bundle. A subset is calibrated and given a threshold from the
            bundle's held-out scores.
    """

    categories: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    shards: tuple[str, ...] | None = None
    maps: Literal["all", "top", "none"] = "all"
    top_maps: int = Field(default=100, ge=1)
    false_positive_rate: float | None = Field(default=None, gt=0, lt=1)
    experts: tuple[str, ...] | None = Field(default=None, min_length=1)


class RunPlan(StrictModel):
    """Everything that determines the scores of a run.

    Attributes:
        format_version: Version of the run's layout.
        code_version: Version of uniad_ray.
        archive: URI of the archive.
        archive_digest: Digest of its content.
        bundle_root: URI of the bundles.
        bundles: Bundle by category.
        options: Options of the run.
        chunks: Number of chunks.
        images: Number of image rows.
    """

    format_version: int
    code_version: str
    archive: str
    archive_digest: str
    bundle_root: str
    bundles: dict[str, PlannedBundle]
    options: ScoreOptions
    chunks: int
    images: int

    @property
    def run_id(self) -> str:
        """First 16 hex digits of the plan's sha256, without the URIs of archive and bundles."""
        document = self.model_dump(mode="json", exclude={"archive", "bundle_root"})
        if self.options.shards is None:
            # Runs of all shards keep the id that they had before shards could be chosen.
            del document["options"]["shards"]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunChunk:
    """One scored chunk; the fields are the columns of schema `run_chunk`."""

    chunk: str
    category: str
    rows: int
    errors: int
    anomalous: int
    sha256: str
    in_review: int = 0


class CategoryCounts(StrictModel):
    """Image counts of one category."""

    images: int
    errors: int
    anomalous: int
    in_review: int = 0


class RunManifest(StrictModel):
    """A finished run. Readers refuse a run without a manifest.

    Attributes:
        run_id: Digest of the plan.
        plan: The plan.
        images: Score rows; equals the number of image rows.
        errors: Rows with status error.
        anomalous: Rows with decision anomalous.
        in_review: Rows with decision review.
        categories: The same counts by category.
        chunks_sha256: sha256 of `chunks.parquet`, which lists every chunk with its digest.
        weights: Weights by category and extractor, with their digests.
        random_weights: Whether any network had random weights; the scores are then meaningless.
        store_retries: Requests to the store that workers repeated, in all calls that ended. Without faults it is 0.
    """

    run_id: str
    plan: RunPlan
    images: int
    errors: int
    anomalous: int
    in_review: int = 0
    categories: dict[str, CategoryCounts]
    chunks_sha256: str
    weights: dict[str, dict[str, Any]]
    random_weights: bool
    store_retries: int = 0

    @model_validator(mode="after")
    def _rows_in_are_rows_out(self) -> RunManifest:
        if self.images != self.plan.images:
            raise ValueError(f"{self.images} score rows for {self.plan.images} image rows")
        return self


def make_plan(
    archive: Location, manifest: ArchiveManifest, store: BundleStore, options: ScoreOptions
) -> tuple[RunPlan, list[Chunk]]:
    """Plan a run with the currently published bundles.

    Raises:
        ArchiveError: A category or a shard is not in the archive.
        RunError: No image matches the options.
        BundleError: A category has no published bundle.
    """
    wanted = choose_categories(archive, manifest, options.categories)
    unknown = set(options.shards or ()) - {shard.path for shard in manifest.shards}
    if unknown:
        raise ArchiveError(f"{archive}: no shard {min(unknown)}; its manifest.json lists the shards")
    work = list(chunks(manifest, categories=wanted, splits=options.splits, shards=options.shards))
    if not work:
        raise RunError(f"{archive}: no images match these options; list the contents with `uniad-ray inspect`")
    bundles = published_bundles(store, {chunk.category for chunk in work}, archive)
    for category, bundle in bundles.items():
        _check_experts(store, category, bundle.version, options.experts)
    plan = RunPlan(
        format_version=FORMAT_VERSION,
        code_version=__version__,
        archive=archive.uri,
        archive_digest=manifest.digest,
        bundle_root=store.root.uri,
        bundles=bundles,
        options=options,
        chunks=len(work),
        images=sum(chunk.rows for chunk in work),
    )
    return plan, work


def _check_experts(store: BundleStore, category: str, version: str, wanted: Sequence[str] | None) -> None:
    if wanted is None:
        return
    store.manifest(category, version).check_experts(wanted)


def adopt_plan(run: Location, plan: RunPlan) -> bool:
    """Write the plan of a new run, or check it against the stored plan.

    Returns:
        True if the run was started before.

    Raises:
        RunError: The run was started with another archive, bundles, options or code.
    """
    location = run / PLAN_NAME
    try:
        location.write_json(plan.model_dump(mode="json"), if_absent=True)
    except ObjectExistsError:
        differences = plan_differences(read_plan(run), plan)
        if differences:
            raise RunError(
                f"{run}: started with another plan: {'; '.join(differences)}; use a new --out, or restore the "
                "original inputs"
            ) from None
        return True
    return False


def plan_differences(old: RunPlan, new: RunPlan) -> list[str]:
    """Describe every difference between two plans that changes the scores."""
    found = []
    if old.archive_digest != new.archive_digest:
        found.append(f"archive digest was {old.archive_digest[:12]}, is {new.archive_digest[:12]}")
    for category in sorted(set(old.bundles) | set(new.bundles)):
        before, after = old.bundles.get(category), new.bundles.get(category)
        if before != after:
            found.append(
                f"bundle of {category} was {before.version if before else 'none'}, "
                f"is {after.version if after else 'none'}"
            )
    found.extend(
        f"option {name} was {getattr(old.options, name)}, is {getattr(new.options, name)}"
        for name in ScoreOptions.model_fields
        if getattr(old.options, name) != getattr(new.options, name)
    )
    if old.code_version != new.code_version:
        found.append(f"uniad_ray was {old.code_version}, is {new.code_version}")
    return found


def read_plan(run: Location) -> RunPlan:
    """Read the plan of a run.

    Raises:
        RunError: There is no plan, it is corrupt or of another format version, or something else is there.
    """
    if not (run / PLAN_NAME).exists():
        raise RunError(
            other_kind(run, "a run")
            or f"{run}: no run there; make one with `uniad-ray score ARCHIVE --bundles ROOT --out {run}`"
        )
    return read_document(run, PLAN_NAME, RunPlan, kind="run", reads=FORMAT_VERSION, error=RunError)


def read_run(run: Location) -> RunManifest:
    """Read the manifest of a finished run.

    Raises:
        RunError: There is no run, it is unfinished, its manifest is corrupt or of another format version, or
            something else is there.
    """
    if not (run / MANIFEST_NAME).exists():
        read_plan(run)
        raise RunError(f"{run}: the run is not finished; repeat the `uniad-ray score` command to resume it")
    return read_document(run, MANIFEST_NAME, RunManifest, kind="run", reads=FORMAT_VERSION, error=RunError)


def scores_path(chunk: str) -> str:
    """Path of the scores of a chunk within a run."""
    return f"scores/{chunk}.parquet"


def maps_path(chunk: str) -> str:
    """Path of the maps of a chunk within a run that keeps all maps."""
    return f"maps/{chunk}.parquet"


def top_maps_path(folder: str) -> str:
    """Path of the maps of a category, given the folder of its chunks, in a run with `maps` of `top`."""
    return f"maps/{folder}/top.parquet"


def map_candidates_path(chunk: str) -> str:
    """Path of the candidate maps of a chunk until all chunks are scored, in a run with `maps` of `top`."""
    return f"{MAP_CANDIDATES}/{chunk}.parquet"


def selected_categories(values: Sequence[str]) -> tuple[str, ...] | None:
    """Sort and deduplicate category names from the command line; an empty list gives None, which means all."""
    return tuple(sorted(set(values))) or None
