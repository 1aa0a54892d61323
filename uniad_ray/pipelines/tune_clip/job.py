"""Tunes the CLIP that names objects on crops of objects, for all categories or for each (TMUAD, section IV-B)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.manifest import choose_categories, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError, FitError, RunError
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.pipelines.cluster.sizing import WorkerPlan, Workers, plan_group
from uniad_ray.pipelines.train.worker import run_trainings
from uniad_ray.pipelines.tune_clip.crops import CropFile, CropSource, make_crops, plan_crops

if TYPE_CHECKING:
    from uniad_ray.training.group import WorkerGroup

CHECKPOINTS_SUFFIX = ".checkpoints"
"""Suffix of the folder for crops and trainings, which may be deleted afterwards."""
CATEGORY = "{category}"
"""Placeholder for the category in a folder's name."""


class ClassAccuracy(StrictModel):
    """Accuracy of one class before and after tuning.

    Attributes:
        crops: Number of crops in the tuning.
        held_out: Number of held-out crops.
        right_before: Held-out crops with the right name before tuning.
        right_after: Held-out crops with the right name after tuning.
    """

    crops: int
    held_out: int
    right_before: int
    right_after: int


class TunedClip(StrictModel):
    """One tuned CLIP.

    Attributes:
        category: Category of the CLIP; None if it is for all.
        folder: Folder of the CLIP.
        uri: Value for `weights.uri`.
        sha256: Digest of the folder, for `weights.sha256`.
        crops: Number of crops in the tuning.
        held_out: Number of held-out crops.
        accuracy_before: Fraction of the held-out crops with the right name before tuning, in [0, 1].
        accuracy_after: The same fraction after tuning.
        epoch: Epoch that was kept; 0 is the original CLIP.
        epochs: Number of epochs that ran.
        classes: Accuracy by class.
        left_out: Number of objects without a crop, by reason.
    """

    category: str | None
    folder: str
    uri: str
    sha256: str
    crops: int
    held_out: int
    accuracy_before: float
    accuracy_after: float
    epoch: int
    epochs: int
    classes: dict[str, ClassAccuracy]
    left_out: dict[str, int]


class TuneReport(StrictModel):
    """Result of a tuning.

    Attributes:
        namer: Extractor whose CLIP was tuned.
        labels: Source of the labels: a field, a folder, or `CLIP itself`. With `CLIP itself`, accuracy only measures
            agreement with the original CLIP.
        tuned: The tuned CLIPs.
        failed: Reason by category, for categories that failed.
    """

    namer: str
    labels: str
    tuned: tuple[TunedClip, ...]
    failed: dict[str, str]


def tune_clip(
    archive: str | None,
    out: str,
    config: FitConfig,
    *,
    crops: str | None = None,
    each: bool = False,
    namer: str | None = None,
    categories: Sequence[str] | None = None,
    sidecar: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    checkpoints: str | None = None,
    address: str | None = None,
) -> TuneReport:
    """Tunes a CLIP, and writes it as a folder that replaces the original one.

    An interrupted tuning resumes from its crops and last epoch when it is called again. A folder that the same call has
    already written is left unchanged.

    Args:
        archive: Root of an archive whose normal images are segmented; None with `crops`.
        out: Folder of the tuned CLIP, on a disk that all machines mount; with `each`, it must contain `{category}`.
        config: The fit configuration; the namer's `tuning` sets the options.
        crops: Folder of sorted crops, `CLASS/image.png`, instead of an archive.
        each: Whether to tune one CLIP per category, on that category alone.
        namer: Extractor whose CLIP is tuned; default the only `ClipNamer` with classes.
        categories: Categories to take crops from; default all.
        sidecar: Root of a sidecar of the archive, to reuse its segments.
        device: `cpu`, `cuda` or `auto`.
        workers: Number of processes; default one per CLIP, up to the number of GPUs or CPUs. With more processes than
            CLIPs, all of them tune each CLIP together.
        checkpoints: Folder of crops and trainings; default is next to `out`.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or lacks a category.
        ConfigError: No extractor names objects by CLIP, or an option is invalid.
        FitError: There are too few crops or classes.
        RunError: The folder holds other files, or the workers do not fit the cluster.
        WeightsError: The weights of a network cannot be found.
    """
    from uniad_ray.scoring.fitting.clip.setup import find_clip
    from uniad_ray.training.group import check_batch_size

    if (archive is None) == (crops is None):
        raise ConfigError("pass either an archive to segment, or --crops with a folder of sorted crops")
    if crops is not None and (each or categories or sidecar):
        raise ConfigError("--crops has no categories; remove --each, --category and --sidecar")
    if each != (CATEGORY in out):
        raise ConfigError(f"{out}: --out must contain {CATEGORY} with --each, and must not without it")
    setup = find_clip(config, namer=namer)
    wanted = [""] if archive is None else _categories(archive, categories)
    groups = {name: [name] for name in wanted} if each else {"": wanted}
    folders = {name: Location.parse(out.replace(CATEGORY, name)).local_path for name in groups}
    for folder in folders.values():
        _check_free(folder)
    root = Location.parse(checkpoints or out.replace(CATEGORY, "each").rstrip("/") + CHECKPOINTS_SUFFIX)
    source = CropSource(
        None if archive is None else Location.parse(archive).uri,
        None if crops is None else str(Location.parse(crops).local_path),
        config,
        setup,
        None if sidecar is None else Location.parse(sidecar).uri,
        device,
    )
    with ray_session(address) as cluster:
        digest = plan_crops(source, cluster)
        tuning = setup.namer.tuning.model_dump(mode="json")
        plans = {name: {"crops": digest, "categories": members, "tuning": tuning} for name, members in groups.items()}
        due = [name for name in groups if not _is_made(folders[name], plans[name])]
        failed: dict[str, str] = {}
        if due:
            plan = plan_group(len(due), Workers(workers, device=device), cluster)
            check_batch_size(setup.namer.tuning.batch_size, plan.count if len(due) < plan.count else 1)
            kept = root / digest
            files, unmade = make_crops(source, [name for group in due for name in groups[group]], kept, cluster)
            failed |= unmade if each else {}
            parts = {
                group: tuple(files[name] for name in groups[group] if name in files)
                for group in due
                if group not in failed
            }
            failed |= _tune(source, parts, kept, folders, plans, plan)
    if failed and not each:
        raise FitError(failed[""])
    return TuneReport(
        namer=setup.name,
        labels=crops or setup.namer.tuning.labels or "CLIP itself",
        tuned=tuple(_report(name or None, folder) for name, folder in folders.items() if name not in failed),
        failed=failed,
    )


def _categories(archive: str, chosen: Sequence[str] | None) -> list[str]:
    source = Location.parse(archive)
    return choose_categories(source, read_manifest(source), chosen)


def _check_free(folder: Path) -> None:
    """Checks that a folder is missing, empty, or holds a tuned CLIP.

    Raises:
        RunError: It holds other files.
    """
    from uniad_ray.training.clip.folder import read_record

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and read_record(folder) is None:
        raise RunError(f"{folder}: the folder holds other files; use a new --out")


def _is_made(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Returns whether a folder holds the tuned CLIP of a plan.

    Raises:
        RunError: It holds the CLIP of another plan.
    """
    from uniad_ray.training.clip.folder import read_record

    record = read_record(folder)
    if record is not None and record.get("plan") != plan:
        raise RunError(f"{folder}: holds a CLIP tuned with other inputs; use a new --out, or delete the folder")
    return record is not None


def _tune(
    source: CropSource,
    parts: Mapping[str, tuple[CropFile, ...]],
    kept: Location,
    folders: Mapping[str, Path],
    plans: Mapping[str, Mapping[str, Any]],
    plan: WorkerPlan,
) -> dict[str, str]:
    """Tunes on the crops and writes the results; returns the reason by group, for groups that failed."""
    if not parts:
        return {}
    total = sum(file.crops for files in parts.values() for file in files) * source.setup.namer.tuning.epochs
    trained = run_trainings(list(parts), partial(_train, source, parts, kept), plan, total, "tuning")
    for name, state in trained.states.items():
        _write(source, folders[name], state, plans[name], parts[name])
    return trained.failed


def _train(
    source: CropSource,
    parts: Mapping[str, tuple[CropFile, ...]],
    kept: Location,
    key: str,
    group: WorkerGroup,
    device: str,
    advance: Callable[[int], None],
) -> tuple[int, Location]:
    """Tunes one CLIP unless it is tuned; returns the number of crops in the tuning and the location of the result."""
    from uniad_ray.training.clip.crop_classifier import CropClassifier
    from uniad_ray.training.clip.labelled_crops import LabelledCrops
    from uniad_ray.training.clip.tuning import STATE_NAME, ClipTuning

    options = source.setup.namer
    crops = LabelledCrops.joined([LabelledCrops.read(file.location) for file in parts[key]])
    classifier = CropClassifier(source.setup.name, options.weights, options.texts, device)
    tuning = ClipTuning(options.tuning, classifier, options.texts, crops, seed=source.config.seed, group=group)
    folder = kept / tuning.digest
    tuning.run(folder, on_step=lambda step: advance(step * options.tuning.batch_size))
    return tuning.iterations * options.tuning.batch_size, folder / STATE_NAME


def _write(
    source: CropSource, folder: Path, state: Location, plan: Mapping[str, Any], files: Sequence[CropFile]
) -> None:
    """Writes the folder of a tuned CLIP."""
    from uniad_ray.perception.weights.model_folders import resolve_folder
    from uniad_ray.training.clip.folder import write_clip_folder
    from uniad_ray.training.clip.tuning import read_tuned

    options = source.setup.namer
    left_out: Counter[str] = Counter()
    for file in files:
        left_out.update(file.left_out)
    tuned = read_tuned(state)
    base = resolve_folder(options.weights)
    record = {
        "plan": dict(plan),
        "base": {"uri": base.uri, "sha256": base.sha256},
        "classes": list(options.classes),
        "prompt": options.prompt,
        "labels": options.tuning.labels if source.folder is None else "sorted crops",
        "left_out": dict(left_out),
        "training": dict(tuned.document),
    }
    write_clip_folder(folder, base, tuned.arrays, record)


def _report(category: str | None, folder: Path) -> TunedClip:
    """Reads the result of a tuning from its folder."""
    from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
    from uniad_ray.training.clip.folder import read_record

    uri = f"file:{folder}"
    record = read_record(folder) or {}
    training = record["training"]
    held_out = sum(training["held_out"])
    columns = zip(*(training[name] for name in ("crops", "held_out", "before", "after")), strict=True)
    return TunedClip(
        category=category,
        folder=str(folder),
        uri=uri,
        sha256=resolve_folder(ModelFolderSource(uri=uri)).sha256 or "",
        crops=sum(training["crops"]),
        held_out=held_out,
        accuracy_before=sum(training["before"]) / held_out,
        accuracy_after=sum(training["after"]) / held_out,
        epoch=training["epoch"],
        epochs=training["epochs"],
        classes={
            name: ClassAccuracy(crops=crops, held_out=held, right_before=before, right_after=after)
            for name, (crops, held, before, after) in zip(record["classes"], columns, strict=True)
        },
        left_out=record["left_out"],
    )
