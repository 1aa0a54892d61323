"""The plan of a scoring run, written before the first score, and the manifest, written after the last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from uniad_ray import __version__
from uniad_ray.archive.formats import other_format
from uniad_ray.archive.kinds import other_kind
from uniad_ray.archive.manifest import ArchiveManifest, Chunk, choose_categories, chunks
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, ObjectExistsError, RunError
from uniad_ray.scoring.bundles.published import PlannedBundle, published_bundles
from uniad_ray.scoring.bundles.store import BundleStore

PLAN_NAME = "plan.json"
CHUNKS_NAME = "chunks.parquet"
MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2


class ScoreOptions(StrictModel):
    """What decides the content of a run beside archive and bundles.

    Attributes:
        categories: Categories to score; None scores all.
        splits: Splits to score; None scores all.
        maps: Which anomaly maps to keep: those of all images, of the `top_maps` highest of each category, or none.
        top_maps: Number of maps per category where `maps` is `top`.
        false_positive_rate: Another rate than the bundle's for the threshold; None keeps the bundle's.
        experts: Experts that take part; None takes all of the bundle. With fewer, calibration of groups and threshold
            follow from the bundle's held-out scores.
    """

    categories: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    maps: Literal["all", "top", "none"] = "all"
    top_maps: int = Field(default=100, ge=1)
    false_positive_rate: float | None = Field(default=None, gt=0, lt=1)
    experts: tuple[str, ...] | None = Field(default=None, min_length=1)


class RunPlan(StrictModel):
    """Everything a run's scores follow from.

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
        """First 16 hex digits of the plan's digest; where archive and bundles lie does not enter it."""
        document = self.model_dump(mode="json", exclude={"archive", "bundle_root"})
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


class CategoryCounts(StrictModel):
    """What a run found in one category."""

    images: int
    errors: int
    anomalous: int


class RunManifest(StrictModel):
    """A finished run; a run without it is not visible to readers.

    Attributes:
        run_id: Digest of the plan.
        plan: The plan.
        images: Score rows, as many as image rows.
        errors: Rows with status error.
        anomalous: Rows with decision anomalous.
        categories: The same by category.
        chunks_sha256: Digest of `chunks.parquet`, which lists every chunk with its digest.
        weights: Weights by category and extractor, with their digests.
        random_weights: Whether any network had random weights; such scores mean nothing.
    """

    run_id: str
    plan: RunPlan
    images: int
    errors: int
    anomalous: int
    categories: dict[str, CategoryCounts]
    chunks_sha256: str
    weights: dict[str, dict[str, Any]]
    random_weights: bool

    @model_validator(mode="after")
    def _rows_in_are_rows_out(self) -> RunManifest:
        if self.images != self.plan.images:
            raise ValueError(f"{self.images} score rows for {self.plan.images} image rows")
        return self


def make_plan(
    archive: Location, manifest: ArchiveManifest, store: BundleStore, options: ScoreOptions
) -> tuple[RunPlan, list[Chunk]]:
    """Plans a run with the bundles that are published now.

    Raises:
        ArchiveError: A category is not in the archive.
        RunError: There is nothing to score.
        BundleError: A category has no published bundle.
    """
    choose_categories(archive, manifest, options.categories)
    work = list(chunks(manifest, categories=options.categories, splits=options.splits))
    if not work:
        raise RunError(f"{archive}: no images to score with these options; `uniad-ray inspect` shows what is there")
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
    known = store.manifest(category, version).config.chosen_experts
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise BundleError(f"bundle {category} {version}: has no expert {', '.join(unknown)}; it has {', '.join(known)}")


def adopt_plan(run: Location, plan: RunPlan) -> bool:
    """Writes the plan of a new run, or checks it against the one that is there.

    Returns:
        Whether the run had been started before.

    Raises:
        RunError: The run was started with another archive, other bundles, options or code.
    """
    location = run / PLAN_NAME
    try:
        location.write_json(plan.model_dump(mode="json"), if_absent=True)
    except ObjectExistsError:
        differences = plan_differences(read_plan(run), plan)
        if differences:
            raise RunError(
                f"{run}: started with another plan: {'; '.join(differences)}; choose another --out, or bring it back"
            ) from None
        return True
    return False


def plan_differences(old: RunPlan, new: RunPlan) -> list[str]:
    """Says in words what differs between two plans in anything that the scores follow from."""
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
    """Reads the plan of a run.

    Raises:
        RunError: There is no plan, it is corrupt or of another format version, or something else is there.
    """
    location = run / PLAN_NAME
    if not location.exists():
        raise RunError(
            other_kind(run, "a run")
            or f"{run}: no run there; make one with `uniad-ray score ARCHIVE --bundles ROOT --out {run}`"
        )
    document = _read_document(run, location)
    try:
        return RunPlan.model_validate(document)
    except ValidationError as error:
        raise RunError(
            other_kind(run, "a run") or f"{location}: damaged plan of a run; choose another --out"
        ) from error


def read_run(run: Location) -> RunManifest:
    """Reads the manifest of a finished run.

    Raises:
        RunError: There is no run, it is not finished, its manifest is corrupt or of another format version, or
            something else is there.
    """
    location = run / MANIFEST_NAME
    if not location.exists():
        read_plan(run)
        raise RunError(f"{run}: the run is not finished; give the same `uniad-ray score` command again to finish it")
    document = _read_document(run, location)
    try:
        return RunManifest.model_validate(document)
    except ValidationError as error:
        raise RunError(
            other_kind(run, "a run") or f"{location}: damaged manifest of a run; score again with another --out"
        ) from error


def _read_document(run: Location, location: Location) -> Any:
    document = location.read_json()
    if message := other_format(location, document, "run", FORMAT_VERSION):
        raise RunError(other_kind(run, "a run") or message)
    return document


def scores_path(chunk: str) -> str:
    """Where the scores of a chunk lie within a run."""
    return f"scores/{chunk}.parquet"


def maps_path(chunk: str) -> str:
    """Where the maps of a chunk lie within a run that keeps all."""
    return f"maps/{chunk}.parquet"


def top_maps_path(folder: str) -> str:
    """Where the highest maps of a category lie, by the folder of its chunks, in a run that keeps the highest."""
    return f"maps/{folder}/top.parquet"


def map_candidates_path(chunk: str) -> str:
    """Where the maps of a chunk wait, in a run that keeps the highest, until all chunks are scored."""
    return f"_map_candidates/{chunk}.parquet"


def selected_categories(values: Sequence[str]) -> tuple[str, ...] | None:
    """Normalises a list of names from a command line: none means all."""
    return tuple(sorted(set(values))) or None
