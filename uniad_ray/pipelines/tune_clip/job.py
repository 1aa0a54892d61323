"""Tunes the CLIP that names objects on crops of them: one for all categories, or one each (TMUAD, section IV-B)."""

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
"""What is added to the name of the folder for the crops and the trainings; they may be deleted afterwards."""
CATEGORY = "{category}"
"""Stands for the name of a category in the name of a folder."""


class ClassAccuracy(StrictModel):
    """What became of one class.

    Attributes:
        crops: Crops that CLIP was tuned on.
        held_out: Crops that it was not.
        right_before: Held-out crops that were named rightly before.
        right_after: Those that are now.
    """

    crops: int
    held_out: int
    right_before: int
    right_after: int


class TunedClip(StrictModel):
    """One tuned CLIP.

    Attributes:
        category: The category that it is for; None where it is for all.
        folder: Where it is.
        uri: What to write as `weights.uri`.
        sha256: Digest of the folder, for `weights.sha256`.
        crops: Crops that it was tuned on.
        held_out: Crops that it was not.
        accuracy_before: Share of the held-out crops with the right name before.
        accuracy_after: The same now.
        epoch: The epoch that was kept; 0 is the CLIP as it was.
        epochs: Epochs that were tried.
        classes: The same class by class.
        left_out: Objects that gave no crop, by reason.
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
    """What a tuning made.

    Attributes:
        namer: Extractor whose CLIP was tuned.
        labels: Where the labels came from: a field, a folder, or `CLIP itself`, of which accuracy is no more than
            agreement with the CLIP before.
        tuned: The tuned CLIPs.
        failed: Reason by category of those that are missing.
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
    """Tunes a CLIP, and writes it as a folder that takes the place of the one it was tuned from.

    Killed at any moment and called again it goes on from the crops and the last epoch that are there; a folder that
    was made by the same call is left as it is.

    Args:
        archive: Root of an archive whose normal images are segmented; None with `crops`.
        out: Folder of the tuned CLIP, on a disk that all machines mount; `{category}` in it with `each`.
        config: The fit configuration; its namer says how to tune (`tuning`).
        crops: Folder of sorted crops, `CLASS/image.png`, in place of an archive.
        each: One CLIP for each category, each tuned on that category alone.
        namer: Extractor whose CLIP is tuned; default the only `ClipNamer` with classes.
        categories: Categories to take crops of; default all of the archive.
        sidecar: Root of a sidecar of the archive; what it holds of the segments is not computed again.
        device: `cpu`, `cuda` or `auto`.
        workers: Processes; default one a CLIP, as far as there are GPUs or CPUs. With more, several tune one together.
        checkpoints: Where crops and trainings are kept; default is beside `out`.
        address: Ray cluster to join; default is a Ray on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or a category is not in it.
        ConfigError: No extractor names objects by CLIP, or an option is wrong.
        FitError: There are too few crops or classes.
        RunError: Something else is in the folder, or the workers do not fit the cluster.
        WeightsError: A network's weights cannot be found.
    """
    from uniad_ray.scoring.fitting.clip_setup import find_clip
    from uniad_ray.training.group import check_batch_size

    if (archive is None) == (crops is None):
        raise ConfigError("give an archive to segment, or --crops with a folder of sorted crops, and not both")
    if crops is not None and (each or categories or sidecar):
        raise ConfigError("--crops are of no category; leave --each, --category and --sidecar out")
    if each != (CATEGORY in out):
        raise ConfigError(f"{out}: --each needs {CATEGORY} in --out, and without --each it must not be there")
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
    """Refuses a folder with anything in it but a tuned CLIP."""
    from uniad_ray.training.clip.folder import read_record

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and read_record(folder) is None:
        raise RunError(f"{folder}: there is something else; choose another --out")


def _is_made(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether a folder is that of a plan.

    Raises:
        RunError: It is that of another one.
    """
    from uniad_ray.training.clip.folder import read_record

    record = read_record(folder)
    if record is not None and record.get("plan") != plan:
        raise RunError(f"{folder}: holds a CLIP that was tuned otherwise; choose another --out, or delete it")
    return record is not None


def _tune(
    source: CropSource,
    parts: Mapping[str, tuple[CropFile, ...]],
    kept: Location,
    folders: Mapping[str, Path],
    plans: Mapping[str, Mapping[str, Any]],
    plan: WorkerPlan,
) -> dict[str, str]:
    """Tunes on the crops, and writes what came of it; gives the reason of what failed."""
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
    """Tunes one CLIP, or finds it tuned; gives the crops of a whole tuning and where the parameters are."""
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
    """What the record of a folder says."""
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
